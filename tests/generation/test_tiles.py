import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.adapters.low_rank import LowRank, merged
from glm_jax.adapters.quantised import num_inputs
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.generation import tiles as tiles_module
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.engine import Engine
from glm_jax.generation.integer_tiles import TiledIntegers
from glm_jax.generation.kept_row import KeptRow
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import Limits
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.tiles import MOST_ROWS, WIDTH, Tiled, TiledHead, tile, tiled
from glm_jax.models.params import bind, create_params
from glm_jax.models.trees import unstack_layers
from glm_jax.models.weights import is_weight
from glm_jax.sharding.mesh import make_mesh
from glm_jax.sharding.rules import path_name
from tests.tiny_run import Stream

# A width that tiles do not divide, biases on every matrix, tied output; and the other way about.
GELU = ModelConfig(
    vocab_size=70, num_layers=2, embed_dim=24, num_heads=3, max_positions=16
).resolved(ComputeConfig(scan_layers=False))
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
    params = unstack_layers(params)
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
    tiles = tile(jax.numpy.asarray(matrix), 1, "float32")
    assert [group.shape for group in tiles.groups] == [(size, 24, WIDTH) for size in groups]
    np.testing.assert_array_equal(tiles.groups[0][0, :, :3], matrix[:, :3])
    assert tiles.shape == matrix.shape
    np.testing.assert_array_equal(tiles.used("float32"), matrix)
    np.testing.assert_allclose(tiles.multiply(x, 1), x @ matrix, atol=1e-5, rtol=0)
    head = TiledHead(tiles)
    assert head.shape == matrix.T.shape
    np.testing.assert_array_equal(head.used("float32"), matrix.T)
    np.testing.assert_allclose(head.score(x[None]), (x @ matrix)[None], atol=1e-5, rtol=0)


def test_axes_that_are_contracted_together():
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(5, 3, 8)), rng.normal(size=(3, 8, 20))
    x, matrix = x.astype(np.float32), matrix.astype(np.float32)
    tiles = tile(jax.numpy.asarray(matrix), 2, "float32")
    np.testing.assert_array_equal(tiles.used("float32"), matrix)
    expected = np.tensordot(x, matrix, 2)
    np.testing.assert_allclose(tiles.multiply(x, 2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [GELU, SWIGLU])
def test_the_model_is_the_same(config):
    params = make(config)
    untied, laid_out = tiled(config, params)
    parts = jax.tree.leaves(laid_out, is_leaf=lambda node: isinstance(node, Tiled))
    # Matrices of a layer, and the LM head.
    assert sum(isinstance(part, Tiled) for part in parts) == 2 * (6 if config is GELU else 7) + 1
    tokens = np.array([[3, 69, 5], [7, 1, 0]], np.int32)
    places = np.broadcast_to(np.arange(3, dtype=np.int32), (2, 3))
    zeros, ends = np.zeros_like(tokens), places + 1
    results = []
    for model in (bind(config, params), bind(untied, laid_out)):
        hidden, _ = model.extend(tokens, places, zeros, zeros, ends, empty_cache(config, 2, 8))
        results.append(np.asarray(model.logits(hidden)))
    assert results[0].std() > 0.01
    np.testing.assert_allclose(*results, atol=1e-5, rtol=0)


def test_plain_matrices_serve_where_tiles_do_not_pay(monkeypatch):
    params = make(SWIGLU)
    engine = Engine(SWIGLU, params)

    def is_tiled(engine, rows):
        return isinstance(engine.for_rows(rows)[1]["layers"]["0"]["mlp"]["up"]["kernel"], Tiled)

    assert is_tiled(engine, MOST_ROWS)
    assert not is_tiled(engine, MOST_ROWS + 1)
    assert not is_tiled(Engine(SWIGLU, params, tiles=False), 2)
    # A model of tiles is not laid out again, and no other kind of weight is.
    assert tiled(*tiled(SWIGLU, params)) is None
    monkeypatch.setattr(tiles_module, "available_bytes", lambda device: 1000)
    assert tiled(SWIGLU, params) is None


def test_tiles_have_the_type_of_the_arithmetic():
    params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), make(SWIGLU))
    layers = tiled(SWIGLU, params)[1]["layers"]
    kernels = [leaf for leaf in jax.tree.leaves(layers) if leaf.ndim > 2]
    assert {leaf.dtype.name for leaf in kernels} == {"float32"}


def test_a_model_makes_its_tiles_once_and_anew_for_other_parameters():
    params = make(SWIGLU)
    lm = LanguageModel(SWIGLU, params)
    options = {"max_new_tokens": 8, "eos_ids": []}
    first = lm.generate([[3, 5]], **options)
    made = lm._engine().for_rows(2)[1]["output"]["table"]
    assert lm._engine().for_rows(2)[1]["output"]["table"] is made
    lm.params = jax.tree.map(lambda leaf: -leaf, params)
    other = lm.generate([[3, 5]], **options)
    assert other == LanguageModel(SWIGLU, lm.params).generate([[3, 5]], **options) != first
    lm.params["output"]["table"] = params["output"]["table"]
    again = lm._engine().for_rows(2)[1]["output"]["table"]
    assert again is not made
    np.testing.assert_array_equal(again.used("float32"), params["output"]["table"])


@pytest.mark.parametrize(
    "how", [None, pytest.param(Quantize(8), marks=pytest.mark.nightly), Quantize(4, 2)]
)
def test_an_adapter_stays_beside_the_tiles_of_its_matrix(how):
    """What decodes and scores with adapters gives what the merged matrices give."""
    params, random = make(SWIGLU), np.random.default_rng(0)
    if how is not None:
        params = quantise_params(params, make_mesh(MeshConfig(), jax.devices()[:1]), how)

    def beside(path, leaf):
        name = path_name(path)
        if not name.endswith(("query/kernel", "out/kernel", "up/kernel")):
            return leaf
        inputs, outputs = leaf.shape[: num_inputs(name)], leaf.shape[num_inputs(name) :]
        a, b = random.normal(size=(*inputs, 3)), random.normal(size=(3, *outputs))
        return LowRank(leaf, np.float32(0.2 * a), np.float32(0.2 * b), 0.5)

    adapted = jax.tree.map_with_path(beside, params, is_leaf=is_weight)
    adapted = jax.tree.map(jax.numpy.asarray, adapted)
    model, same = (LanguageModel(SWIGLU, one) for one in (adapted, merged(adapted, "float32")))
    rows = model._engine().for_rows(2)[1]
    kernel = rows["layers"]["0"]["attention"]["query"]["kernel"]
    assert isinstance(kernel, LowRank)
    assert isinstance(kernel.base, Tiled if how is None else TiledIntegers)
    batch = next(Stream())
    logits = np.asarray(same.logits(batch))
    assert np.abs(logits - LanguageModel(SWIGLU, params).logits(batch)).max() > 0.01
    np.testing.assert_allclose(model.logits(batch), logits, atol=1e-5, rtol=0)
    texts = [[3, 5, 9], [7]]
    options = {"max_new_tokens": 6, "eos_ids": []}
    assert model.generate(texts, **options) == same.generate(texts, **options)
    scores = [one.score([3, 5], [[7, 9], [8]]) for one in (model, same)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    kept = [KeptRow(one._engine()) for one in (model, same)]
    for ids in ([3, 4, 5], [3, 4, 7, 8, 9]):
        one, other = (row.continue_(ids, Limits([], 4), Sampling()).ids for row in kept)
        assert one == other
