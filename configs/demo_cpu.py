"""A GLM of 1.8 M parameters on the bundled text: the demo.

    python -m glm_jax.train --config configs/demo_cpu.py --workdir runs/demo

Every kind of row: [MASK] spans, [sMASK] sentences, [gMASK] documents, and rows read from left to
right, in which every token is predicted. What lets a few minutes do: short rows, many targets in
each (left-to-right rows, masked spans that are short), heads that begin at their neighbours, and a
learning rate that does not undo that (docs/decisions/021-small-runs-that-learn.md).
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
            mixture={"en": ("bundled:en", 0.8), "zh": ("bundled:zh", 0.2)},
            sequence_length=64,
            batch_size=16,
        ),
        objective=ObjectiveConfig(
            span_rate=0.6,
            sentence_rate=0.03,
            document_rate=0.02,
            causal_rate=0.35,
            mask_ratio=0.15,
            mean_span_length=1.0,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=2e-3,
            warmup_steps=100,
            beta2=0.98,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=4000,
            local_start=True,
            log_every=50,
            eval_every=1000,
            eval_batches=32,
            checkpoint_every=1000,
            sample_every=2000,
        ),
    )
