"""A small model that answers every question with some number, for GRPO to begin with.

    python examples/grpo.py --write runs/align/counting
    python -m glm_jax.train --config configs/align/guesser_cpu.py --workdir runs/guesser

It learns that an answer is one word from zero to nine, and nothing of which: one in ten is right.
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            vocab_size=7168,
            num_layers=2,
            embed_dim=128,
            num_heads=4,
            max_positions=32,
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(
            source="runs/align/counting/guesses.jsonl",
            sequence_length=32,
            batch_size=32,
            eval_fraction=0.05,
        ),
        examples=ExamplesConfig(format="prompt_response"),
        optimizer=OptimizerConfig(peak_learning_rate=2e-3, warmup_steps=10, weight_decay=0.0),
        train=TrainConfig(
            num_steps=120,
            log_every=20,
            eval_every=60,
            eval_batches=1,
            sample_every=0,
            checkpoint_every=120,
        ),
    )
