"""The end of the bundled model's training: few blanks in a row, as people write them.

    python -m glm_jax.train --config configs/bundled_end_cpu.py --workdir runs/bundled_end

With 30 % masked (`bundled_cpu.py`) words are learned fast, but a model comes to tell a blank's end
by how many masks stand around it, and where there is one alone, it goes on. Here a row has two or
three, and the model of `runs/bundled` goes on from where it is.
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
            embed_dim=192,
            num_heads=6,
            max_positions=64,
            initializer_range=0.05,
            dropout_rate=0.1,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(
            mixture={"en": ("bundled:en", 0.8), "zh": ("bundled:zh", 0.2)},
            sequence_length=64,
            batch_size=24,
        ),
        objective=ObjectiveConfig(
            span_rate=0.9,
            sentence_rate=0.03,
            document_rate=0.02,
            causal_rate=0.05,
            mask_ratio=0.08,
            mean_span_length=1.0,
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=6e-4,
            warmup_steps=100,
            beta2=0.98,
            weight_decay=0.1,
            final_ratio=0.02,
        ),
        train=TrainConfig(
            num_steps=2500,
            seed=1,
            init_from="runs/bundled",
            log_every=100,
            eval_every=500,
            eval_batches=64,
            checkpoint_every=500,
            sample_every=1000,
        ),
    )
