"""A GLM of 1.7 M parameters on the bundled text, four fifths of it Chinese: the base of the proofs.

    python -m glm_jax.train --config configs/proofs/glm_cpu.py --workdir runs/proofs/glm_0

It is what `review_cpu.py` tunes (docs/proofs.md), and `causal_cpu.py` is its twin. The recipe is
the demo's with more blanks in a row (30 %), as the bundled model was trained.
"""

from glm_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        model=ModelConfig(
            vocab_size=7168,
            num_layers=4,
            embed_dim=128,
            num_heads=4,
            # As far as rows reach: positions that no row has would stay as drawn.
            max_positions=64,
            initializer_range=0.05,
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(
            mixture={"en": ("bundled:en", 0.2), "zh": ("bundled:zh", 0.8)},
            sequence_length=64,
            batch_size=16,
        ),
        objective=ObjectiveConfig(
            span_rate=0.6,
            sentence_rate=0.03,
            document_rate=0.02,
            causal_rate=0.35,
            mask_ratio=0.3,
            mean_span_length=1.0,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-3,
            warmup_steps=100,
            beta2=0.98,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=2000,
            local_start=True,
            log_every=100,
            eval_every=1000,
            eval_batches=32,
            checkpoint_every=500,
        ),
    )
