"""The GLM of 6.6 M parameters that the package brings, `glm_jax.load("bundled")`.

    python -m glm_jax.train --config configs/bundled.py --workdir runs/bundled
    python tools/make_bundled_model.py

The second line makes the model whole: it trains by this config and the short one of its end,
`bundled_end.py` (minutes on a GPU), and puts what it has into `glm_jax/bundled/model`. It is the
demo's recipe with wider layers and dropout, over many more slots.
"""

from glm_jax.config import (
    ComputeConfig,
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
            num_layers=6,
            embed_dim=256,
            num_heads=8,
            # As far as rows reach: positions that no row has would stay as drawn.
            max_positions=64,
            initializer_range=0.05,
            dropout_rate=0.2,
            attention_dropout_rate=0.0,
        ),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=False),
        data=DataConfig(
            mixture={"en": ("bundled:en", 0.8), "zh": ("bundled:zh", 0.2)},
            sequence_length=64,
            batch_size=128,
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
            peak_learning_rate=1.5e-3,
            warmup_steps=500,
            beta2=0.98,
            weight_decay=0.1,
            final_ratio=0.02,
        ),
        train=TrainConfig(
            num_steps=12_000,
            local_start=True,
            log_every=100,
            eval_every=2000,
            eval_batches=64,
            checkpoint_every=4000,
            sample_every=5000,
        ),
    )
