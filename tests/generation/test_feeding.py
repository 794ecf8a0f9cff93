"""A row that grows token by token sees what it would have seen as a whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.feeding import feed
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh

LEARNED = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=1,
    max_positions=12,
    initializer_range=0.3,
    scan_layers=False,
)
ROTARY = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    max_positions=12,
    position_encoding="rotary",
    tied_embeddings=False,
    initializer_range=0.3,
    scan_layers=False,
)


BLOCKS = dataclasses.replace(ROTARY, position_encoding="rotary_block")


@pytest.mark.parametrize(
    "config", [LEARNED, ROTARY, BLOCKS], ids=["learned", "rotary", "rotary_block"]
)
def test_one_token_after_the_other_is_the_row_at_once(config):
    """Two rows of five and of three tokens; the shorter one stops, and nothing of it is seen."""
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    model, draws = bind(config, params), np.random.default_rng(0)
    tokens = draws.integers(0, 24, (2, 5)).astype(np.int32)
    positions = draws.integers(0, 12, (2, 5)).astype(np.int32)
    blocks = draws.integers(0, 12, (2, 5)).astype(np.int32)
    start, end = np.zeros((2, 5), np.int32), np.tile(np.arange(1, 6, dtype=np.int32), (2, 1))
    expected = model.logits(model(tokens, positions, blocks, start, end))

    step = jax.jit(lambda caches, *fed: feed(bind(config, params), caches, *fed))
    caches, length = empty_cache(config, 2, 8), jnp.zeros(2, jnp.int32)
    for place in range(5):
        # The second row has stopped after three: what it writes lies behind its length.
        fed = (tokens[:, place], positions[:, place], blocks[:, place])
        scores, caches = step(caches, length, *fed)
        assert scores.dtype == jnp.float32
        rows = slice(None) if place < 3 else slice(1)
        np.testing.assert_allclose(scores[rows], expected[rows, place], atol=2e-5)
        length = length + jnp.array([1, place < 2])
    # Its third token once more, over the garbage: as at the first time.
    fed = (tokens[:, 2], positions[:, 2], blocks[:, 2])
    scores, _ = step(caches, jnp.array([2, 2]), *fed)
    np.testing.assert_allclose(scores, expected[:, 2], atol=2e-5)
