"""A GLM of 5 M parameters on the bundled text, in rows of 256 slots.

    python -m glm_jax.train --config configs/tiny_cpu.py --workdir runs/tiny

Every kind of row: [MASK] spans, [sMASK] sentences, [gMASK] documents.
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
            embed_dim=256,
            num_heads=4,
            max_positions=256,
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(source="bundled", sequence_length=256, batch_size=8),
        objective=ObjectiveConfig(span_rate=0.5, sentence_rate=0.2, document_rate=0.3),
        optimizer=OptimizerConfig(
            peak_learning_rate=1.5e-3,
            warmup_steps=60,
            beta2=0.98,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=440,
            log_every=10,
            eval_every=110,
            eval_batches=16,
            checkpoint_every=110,
            sample_every=220,
        ),
    )
