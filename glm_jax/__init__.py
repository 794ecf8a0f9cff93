"""GLM in JAX: blank infilling from raw text to a filled blank.

The names below are the public surface; each is imported when first used, so that `import glm_jax`
costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that defines it
_HOMES = {
    "Batch": "glm_jax.batch",
    "prefix_bounds": "glm_jax.batch",
    "ModelConfig": "glm_jax.config",
    "Config": "glm_jax.config",
    "load_config": "glm_jax.config",
    "load": "glm_jax.inference.language_model",
    "LanguageModel": "glm_jax.inference.language_model",
    "load_tokenizer": "glm_jax.interop.tokenizers",
    "batches": "glm_jax.pipeline",
}
_MODULES = ["corruption"]

__all__ = [*_HOMES, *_MODULES]

if TYPE_CHECKING:
    from glm_jax import corruption as corruption
    from glm_jax.batch import Batch as Batch
    from glm_jax.batch import prefix_bounds as prefix_bounds
    from glm_jax.config import Config as Config
    from glm_jax.config import ModelConfig as ModelConfig
    from glm_jax.config import load_config as load_config


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"glm_jax.{name}")
    else:
        raise AttributeError(f"module 'glm_jax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
