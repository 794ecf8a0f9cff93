"""A chat model of 1 M parameters with ChatGLM2's layers, on the small talk that `talks.py` makes.

    python examples/chat_model/talks.py
    python -m glm_jax.train --config examples/chat_model/config.py --workdir runs/talker
    python -m glm_jax.chat --checkpoint runs/talker

Some four CPU minutes; 800 steps end at an `eval/loss` of 0.261, `eval/unigram_loss` is 3.606.
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
            vocab_size=832,
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
        data=DataConfig(
            source="runs/talks/talks.jsonl",
            tokenizer="runs/talks",
            sequence_length=256,
            batch_size=8,
        ),
        objective=ObjectiveConfig(span_rate=0.0, causal_rate=1.0),
        optimizer=OptimizerConfig(
            peak_learning_rate=4e-3, warmup_steps=30, beta2=0.95, weight_decay=0.1
        ),
        train=TrainConfig(
            num_steps=800,
            log_every=50,
            eval_every=400,
            eval_batches=8,
            checkpoint_every=400,
            sample_every=0,
        ),
    )
