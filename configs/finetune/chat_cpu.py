"""Full fine-tuning of a small chat model on a file of conversations: a minute or two on two cores.

    python examples/finetune.py --write runs/tune/talks.jsonl
    python -m glm_jax.train --config configs/finetune/chat_cpu.py --workdir runs/tuned
    python -m glm_jax.chat --checkpoint runs/tuned

The model is that of examples/chat_model; another one, and files of your own:

    ... --set train.init_from=DIR --set data.tokenizer=DIR --set data.source='my/*.jsonl'

What is learnt is what the model's own fine-tuning code learns (docs/tune_your_chatglm.md).
"""

from glm_jax.config import Config, DataConfig, ExamplesConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        # There is no `model`: the run has the shape of the checkpoint.
        data=DataConfig(
            source="runs/tune/talks.jsonl",
            tokenizer="runs/talker",
            sequence_length=128,
            batch_size=8,
            eval_fraction=0.1,
        ),
        examples=ExamplesConfig(format="auto", loss_on="assistant"),
        optimizer=OptimizerConfig(
            peak_learning_rate=3e-3, warmup_steps=10, beta2=0.95, weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=100,
            init_from="runs/talker",
            log_every=10,
            eval_every=50,
            eval_batches=2,
            checkpoint_every=50,
            sample_every=0,
        ),
    )
