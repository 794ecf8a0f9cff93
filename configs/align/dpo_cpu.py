"""DPO of a small chat model on a file of pairs: a minute or two on two cores.

    python examples/dpo.py --write runs/align/pairs.jsonl
    python -m glm_jax.train --config configs/align/dpo_cpu.py --workdir runs/aligned
    python -m glm_jax.chat --checkpoint runs/aligned

The model is that of examples/chat_model, and the reference too; another one, and pairs of your own:

    ... --set train.init_from=DIR --set data.tokenizer=DIR --set data.source='my/*.jsonl'

A pair is a prompt with a chosen and a rejected answer (docs/align.md).
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    PreferencesConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        # The run has the shape of the checkpoint. Policy and reference are compared, so without
        # dropout.
        model=ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(
            source="runs/align/pairs.jsonl",
            tokenizer="runs/talker",
            sequence_length=128,
            batch_size=8,
            eval_fraction=0.2,
        ),
        examples=ExamplesConfig(format="preferences"),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-4, warmup_steps=5, beta2=0.95, weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=40,
            init_from="runs/talker",
            loss="dpo",
            # A policy this far from its reference has gone astray.
            stop_above="kl/k2=20",
            log_every=10,
            eval_every=20,
            eval_batches=1,
            checkpoint_every=20,
        ),
        preferences=PreferencesConfig(beta=0.1),
    )
