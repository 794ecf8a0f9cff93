"""GRPO of the bundled model on blanks of its own corpus: half an hour on two cores.

    python tools/make_blank_prompts.py runs/align/blanks
    python -m glm_jax.train --config configs/align/bundled_cpu.py --workdir runs/align/bundled

Rewarded are the words that stood in a blank and nothing beside them (examples/blanks/fills.py).
What it made of the model stands in glm_jax/bundled/aligned/README.md; tools/make_aligned_model.py
does all of it.
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(
            source="runs/align/blanks/prompts.jsonl",
            sequence_length=64,
            batch_size=128,
            eval_fraction=0.02,
        ),
        examples=ExamplesConfig(format="prompts"),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-3, warmup_steps=10, schedule="linear", weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=200,
            init_from="bundled",
            loss="grpo",
            accumulation_steps=4,
            stop_above="kl/k1=3",
            log_every=10,
            eval_every=50,
            eval_batches=1,
            sample_every=100,
            checkpoint_every=50,
        ),
        lora=LoraConfig(rank=8, dropout=0.0, targets="all"),
        rollouts=RolloutsConfig(
            group_size=8,
            max_new_tokens=8,
            reward="examples/blanks/fills.py:words",
            truncated="zero",
        ),
        # The frozen model is the reference: a word that it finds improbable costs something.
        policy=PolicyConfig(kl_beta=0.05, kl_by_ratio=True),
    )
