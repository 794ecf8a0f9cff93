"""Small models of random parameters behind the border, for tests of routes."""

import functools

import jax

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer


@functools.cache
def small_filler(**changes):
    """A model that fills blanks, with the bundled vocabulary; tests share it."""
    shape = {
        "vocab_size": 7168,
        "num_layers": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "max_positions": 64,
        "initializer_range": 0.4,
    }
    config = ModelConfig(**{**shape, **changes})
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    return LanguageModel(config, params, load_tokenizer())
