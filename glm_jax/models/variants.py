"""The published models, one constant each.

Sources: for GLM (2021) THUDM/GLM, `config_tasks/model_*.sh`; for the later models the config.json
files of ChatGLM-6B, ChatGLM2, ChatGLM3, CodeGeeX2, GLM-4 and GLM-4-0414. These constants serve
training from scratch and planning. A checkpoint is always loaded by its own config.json.
"""

import dataclasses

from glm_jax.config.model import ModelConfig


def _glm(
    num_layers: int, embed_dim: int, num_heads: int, vocab_size: int, max_positions: int
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        max_positions=max_positions,
    )


# Vocabulary sizes are those of the tokenizers rounded up to a multiple of 128, as trained.
_BERT, _ROBERTA, _GPT2, _CHINESE = 30592, 50304, 50304, 50048

GLM_BASE = _glm(12, 768, 12, _BERT, 512)
GLM_LARGE = _glm(24, 1024, 16, _BERT, 512)
GLM_ROBERTA_LARGE = _glm(24, 1024, 16, _ROBERTA, 512)
GLM_LARGE_CHINESE = _glm(24, 1024, 16, _CHINESE, 1024)
GLM_410M = _glm(30, 1024, 16, _BERT, 512)
GLM_515M = _glm(30, 1152, 18, _BERT, 512)
GLM_2B = _glm(36, 2048, 32, _GPT2, 1024)
GLM_10B = _glm(48, 4096, 64, _GPT2, 1024)
GLM_10B_CHINESE = _glm(48, 4096, 64, _CHINESE, 1024)

# Parameters and compute are in 32 bits, for training; released files have 16.
CHATGLM_6B = ModelConfig(
    vocab_size=130528,
    num_layers=28,
    embed_dim=4096,
    num_heads=32,
    mlp_dim=16384,
    residual="scaled_norm",
    max_positions=2048,
    position_encoding="rotary_block",
    rotary_fraction=1.0,
    rotary_dtype="float16",
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
)
CHATGLM2_6B = ModelConfig(
    vocab_size=65024,
    num_layers=28,
    embed_dim=4096,
    num_heads=32,
    num_kv_heads=2,
    head_dim=128,
    mlp_dim=13696,
    activation="swiglu",
    norm="rms_norm",
    norm_epsilon=1e-5,
    biases="qkv",
    tied_embeddings=False,
    max_positions=32768,
    position_encoding="rotary",
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
)
# The rotary factors of the long-context ChatGLMs could not be checked against their files.
CHATGLM2_6B_32K = dataclasses.replace(CHATGLM2_6B, rotary_scaling="linear", rotary_factor=16.0)
CHATGLM3_6B = dataclasses.replace(CHATGLM2_6B, max_positions=8192)
CHATGLM3_6B_32K = dataclasses.replace(CHATGLM2_6B, rotary_scaling="base", rotary_factor=50.0)
CHATGLM3_6B_128K = dataclasses.replace(
    CHATGLM2_6B, max_positions=131072, rotary_scaling="base", rotary_factor=500.0
)
CODEGEEX2_6B = dataclasses.replace(CHATGLM2_6B, max_positions=8192)

GLM4_9B = dataclasses.replace(
    CHATGLM2_6B, vocab_size=151552, num_layers=40, norm_epsilon=1.5625e-7, max_positions=8192
)
GLM4_9B_CHAT = dataclasses.replace(
    GLM4_9B, max_positions=131072, rotary_scaling="base", rotary_factor=500.0
)
GLM4_9B_CHAT_1M = dataclasses.replace(
    GLM4_9B,
    num_kv_heads=4,
    max_positions=1048576,
    rotary_scaling="base",
    rotary_factor=10000.0,
)
GLM4_9B_0414 = dataclasses.replace(
    GLM4_9B, norm_epsilon=1e-5, residual="sandwich", max_positions=32768
)
GLM4_32B_0414 = dataclasses.replace(
    GLM4_9B_0414, num_layers=61, embed_dim=6144, num_heads=48, mlp_dim=23040, biases="none"
)

# Fields that say how a model is stored, regularised and tuned, not which model it is.
_NOT_SHAPE = {
    "initializer_range": 0.0,
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "param_dtype": "float32",
    "prefix_length": 0,
    "prefix_projection": None,
    "prefix_embed_dim": None,
    "prefix_dropout_rate": 0.0,
}

VARIANTS: dict[str, ModelConfig] = {
    "glm-base": GLM_BASE,
    "glm-large": GLM_LARGE,
    "glm-roberta-large": GLM_ROBERTA_LARGE,
    "glm-large-chinese": GLM_LARGE_CHINESE,
    "glm-410m": GLM_410M,
    "glm-515m": GLM_515M,
    "glm-2b": GLM_2B,
    "glm-10b": GLM_10B,
    "glm-10b-chinese": GLM_10B_CHINESE,
    "chatglm-6b": CHATGLM_6B,
    "chatglm2-6b": CHATGLM2_6B,
    "chatglm2-6b-32k": CHATGLM2_6B_32K,
    "chatglm3-6b": CHATGLM3_6B,
    "chatglm3-6b-32k": CHATGLM3_6B_32K,
    "chatglm3-6b-128k": CHATGLM3_6B_128K,
    "codegeex2-6b": CODEGEEX2_6B,
    "glm4-9b": GLM4_9B,
    "glm4-9b-chat": GLM4_9B_CHAT,
    "glm4-9b-chat-1m": GLM4_9B_CHAT_1M,
    "glm4-9b-0414": GLM4_9B_0414,
    "glm4-32b-0414": GLM4_32B_0414,
}


def variant_name(config: ModelConfig) -> str | None:
    """The key in `VARIANTS` of the first published model of this shape; None: there is none."""
    shape = _shape(config)
    return next((name for name, known in VARIANTS.items() if _shape(known) == shape), None)


def _shape(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config.with_sizes(), **_NOT_SHAPE)  # type: ignore[arg-type]
