import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation import tiles as tiles_module
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.tiles import MOST_ROWS, WIDTH, bind_tiles, make_tiles, multiply
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh

# A width that tiles do not divide, biases on every matrix, tied output; and the other way about.
GELU = ModelConfig(
    vocab_size=70, num_layers=2, embed_dim=24, num_heads=3, max_positions=16, scan_layers=False
)
SWIGLU = dataclasses.replace(
    GELU,
    num_kv_heads=1,
    mlp_dim=130,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
)


def make(config):
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=1)
    # Biases are drawn as 0; others would go unnoticed if they were lost.
    return jax.tree.map(lambda leaf: leaf + 0.01 * (leaf.ndim < 3), params)


# Columns, and the tiles of each group: 40 tiles in 16 groups, 3 tiles, 1 tile.
@pytest.mark.parametrize(
    ("columns", "groups"), [(630, [3] * 8 + [2] * 8), (48, [1, 1, 1]), (3, [1])]
)
def test_a_product_with_tiles_is_that_with_the_matrix(columns, groups):
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(5, 24)), rng.normal(size=(24, columns))
    x, matrix = x.astype(np.float32), matrix.astype(np.float32)
    tiles = tiles_module._tile(jax.numpy.asarray(matrix), 1, "float32")
    assert [group.shape for group in tiles] == [(size, 24, WIDTH) for size in groups]
    np.testing.assert_array_equal(tiles[0][0, :, :3], matrix[:, :3])
    np.testing.assert_allclose(multiply(x, tiles, columns), x @ matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [GELU, SWIGLU])
def test_the_model_is_the_same(config):
    params = make(config)
    tiles = make_tiles(config, params)
    # Matrices of a layer, and the output.
    assert len(tiles) == 2 * (6 if config is GELU else 7) + 1
    tokens = np.array([[3, 69, 5], [7, 1, 0]], np.int32)
    places = np.broadcast_to(np.arange(3, dtype=np.int32), (2, 3))
    zeros, ends = np.zeros_like(tokens), places + 1
    results = []
    for model in (bind(config, params), bind_tiles(config, params, tiles, 2)):
        hidden, _ = model.extend(tokens, places, zeros, zeros, ends, empty_cache(config, 2, 8))
        results.append(np.asarray(model.logits(hidden)))
    assert results[0].std() > 0.01
    np.testing.assert_allclose(*results, atol=1e-5, rtol=0)


def test_plain_matrices_serve_where_tiles_do_not_pay(monkeypatch):
    params = make(SWIGLU)
    tiles = make_tiles(SWIGLU, params)

    def is_tiled(*arguments):
        return hasattr(bind_tiles(SWIGLU, params, *arguments).layers[0].mlp.up, "tiles")

    assert is_tiled(tiles, MOST_ROWS)
    assert not is_tiled(tiles, MOST_ROWS + 1)
    assert not is_tiled(None, 2)
    monkeypatch.setattr(tiles_module, "_free_memory", lambda: 1000)
    assert make_tiles(SWIGLU, params) is None


def test_tiles_have_the_type_of_the_arithmetic():
    params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), make(SWIGLU))
    tiles = make_tiles(SWIGLU, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(tiles)} == {"float32"}


def test_a_model_makes_its_tiles_once_and_anew_for_other_parameters():
    params = make(SWIGLU)
    lm = LanguageModel(SWIGLU, params)
    options = {"max_new_tokens": 8, "eos_ids": []}
    first = lm.generate([[3, 5]], **options)
    made = lm._tiles()
    assert lm._tiles() is made is not None
    lm.params = jax.tree.map(lambda leaf: -leaf, params)
    other = lm.generate([[3, 5]], **options)
    assert other == LanguageModel(SWIGLU, lm.params).generate([[3, 5]], **options) != first
    lm.params["output"]["table"] = params["output"]["table"]
    assert lm._tiles() is not made
    for new, expected in zip(
        lm._tiles()["output"], make_tiles(SWIGLU, lm.params)["output"], strict=True
    ):
        np.testing.assert_array_equal(new, expected)
