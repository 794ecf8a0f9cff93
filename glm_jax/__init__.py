"""GLM in JAX: blank infilling from raw text to a filled blank.

The names below are the public surface; each is imported when first used, so that `import glm_jax`
costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from glm_jax.platforms import stay_off_absent_tpus

__version__ = "0.1.0"

# public name -> module that defines it
_HOMES = {
    "Batch": "glm_jax.batch",
    "prefix_bounds": "glm_jax.batch",
    "ModelConfig": "glm_jax.config",
    "Config": "glm_jax.config",
    "load_config": "glm_jax.config.files",
    "Quantize": "glm_jax.adapters.quantising",
    "load": "glm_jax.generation.language_model",
    "Conversation": "glm_jax.generation.conversation",
    "LanguageModel": "glm_jax.generation.language_model",
    "load_tokenizer": "glm_jax.tokenizers.tokenizer",
    "batches": "glm_jax.pipeline.batches",
}
_MODULES = ["corruption"]

__all__ = [
    "Batch",
    "Config",
    "Conversation",
    "LanguageModel",
    "ModelConfig",
    "Quantize",
    "batches",
    "corruption",
    "load",
    "load_config",
    "load_tokenizer",
    "prefix_bounds",
]

if TYPE_CHECKING:
    from glm_jax import corruption
    from glm_jax.adapters.quantising import Quantize
    from glm_jax.batch import Batch, prefix_bounds
    from glm_jax.config import Config, ModelConfig
    from glm_jax.config.files import load_config
    from glm_jax.generation.conversation import Conversation
    from glm_jax.generation.language_model import LanguageModel, load
    from glm_jax.pipeline.batches import batches
    from glm_jax.tokenizers.tokenizer import load_tokenizer


# Before jax starts what it finds, whichever module of this package is the first to import it.
stay_off_absent_tpus()


def __getattr__(name: str) -> object:
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
