"""The published GLM models, one constant each (THUDM/GLM, `config_tasks/model_*.sh`)."""

from glm_jax.config import ModelConfig


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
}
