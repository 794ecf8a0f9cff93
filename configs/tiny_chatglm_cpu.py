"""A model with ChatGLM2's layers, 3 M parameters, on the bundled text: minutes on two cores.

    python -m glm_jax.train --config configs/tiny_chatglm_cpu.py --workdir runs/tiny_chatglm

Every row is causal: [gMASK], the start token, and text, each token predicted from those before it.
To go on from a checkpoint instead, with its shape and its parameters:

    ... --set train.init_from=DIR

200 steps end 1.49 nats below `eval/unigram_loss`.
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
            num_kv_heads=2,
            mlp_dim=384,
            activation="swiglu",
            norm="rms_norm",
            biases="qkv",
            tied_embeddings=False,
            max_positions=512,
            position_encoding="rotary",
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(source="bundled", sequence_length=256, batch_size=8),
        objective=ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
        optimizer=OptimizerConfig(
            peak_learning_rate=3e-3,
            warmup_steps=20,
            beta2=0.95,
            weight_decay=0.1,
        ),
        train=TrainConfig(
            num_steps=200,
            log_every=10,
            eval_every=100,
            eval_batches=8,
            checkpoint_every=100,
            sample_every=100,
        ),
    )
