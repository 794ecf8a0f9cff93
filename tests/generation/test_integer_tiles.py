import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.adapters.quantised import Quantised, QuantisedTable, num_bytes
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.generation.integer_tiles import (
    INTEGER_WIDTH,
    MOST_ROWS_OF_DIGITS,
    TiledIntegers,
    from_digits,
    tile_integers,
    to_digits,
)
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.tiles import TiledHead, tiled
from glm_jax.models.params import create_params
from glm_jax.models.trees import unstack_layers
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=70,
    num_layers=2,
    embed_dim=24,
    num_heads=3,
    num_kv_heads=1,
    mlp_dim=130,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
    max_positions=64,
).resolved(ComputeConfig(scan_layers=False))


def draw(shape, num_outputs, bits, groups=1):
    rng, most = np.random.default_rng(0), 2 ** (bits - 1) - 1
    values = rng.integers(-most, most + 1, shape)
    scale = rng.uniform(0.5, 1.5, (groups, *shape[len(shape) - num_outputs :]))
    dtype = jnp.int8 if bits == 8 else jnp.int4
    return Quantised(jnp.asarray(values, dtype), jnp.asarray(scale, "float16"), num_outputs)


def laid_out(weight):
    return tile_integers(weight.values, weight.scale, weight.num_outputs)


def quantised_model(config, how):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = unstack_layers(create_params(config, mesh, seed=1))
    # Larger than they are drawn, so that answers depend on the text.
    params = jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 1 else leaf, params)
    return quantise_params(params, mesh, how)


def test_digits_are_the_number():
    digits, unit = to_digits(jnp.array([[127.0, 0.5, -1 / 254], [0, 0, 0]]))
    assert digits.dtype == jnp.int8
    np.testing.assert_array_equal(digits[::2], [[127, 0, 0], [0, 127, -1], [0, 0, 0]])
    np.testing.assert_array_equal(digits[1::2], 0)
    np.testing.assert_array_equal(unit, [[1], [1]])


def test_digits_hold_what_float32_holds():
    x = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32) * [
        [1],
        [1e-3],
        [50],
        [7],
    ]
    digits, unit = to_digits(jnp.asarray(x, "float32"))
    again = np.asarray(from_digits(digits.reshape(3, 4, -1)) * unit, np.float64)
    most = np.abs(x).max(1, keepdims=True)
    # Half a third digit, and the rounding of float32 on the way back.
    assert (np.abs(again - x) / most).max() < 2**-22


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [MOST_ROWS_OF_DIGITS, MOST_ROWS_OF_DIGITS + 1])
@pytest.mark.parametrize(
    ("shape", "num_outputs", "groups"),
    [((96, 1200), 1, 1), ((96, 3), 1, 1), ((96, 2, 40), 2, 4), ((3, 32, 130), 1, 2)],
)
def test_a_product_is_that_of_the_matrix(bits, rows, shape, num_outputs, groups):
    weight = draw(shape, num_outputs, bits, groups)
    tiles = laid_out(weight)
    assert all(group.shape[-1] == INTEGER_WIDTH for group in tiles.groups)
    assert tiles.shape == shape
    np.testing.assert_array_equal(tiles.used("float32"), weight.used("float32"))
    num_inputs = len(shape) - num_outputs
    x = np.random.default_rng(1).normal(size=(rows, *shape[:num_inputs])).astype(np.float32)
    x[3] *= 1e4
    exact = np.tensordot(x.astype(np.float64), np.asarray(weight.used("float32")), num_inputs)
    found = np.asarray(tiles.multiply(jnp.asarray(x), num_inputs))
    assert found.shape == exact.shape
    size = np.abs(exact).reshape(rows, -1).max(1).reshape(rows, *[1] * num_outputs)
    np.testing.assert_allclose(found / size, exact / size, atol=1e-6, rtol=0)


def test_four_bits_take_half_a_byte():
    tiles = laid_out(draw((96, 16 * 128), 1, 4))
    assert num_bytes(tiles.groups) == 96 * 16 * 128 // 2
    assert len(tiles.groups) == 16


def test_no_copy_of_a_matrix_is_made():
    weights = [draw((256, 16 * 128), 1, bits) for bits in (8, 4)]
    for weight in weights:
        chain = [laid_out(weight)] * 4

        def run(x, chain):
            for tiles in chain:
                x = jnp.tanh(tiles.multiply(x, 1)[:, :256])
            return x

        compiled = jax.jit(run).lower(jnp.zeros((2, 256)), chain).compile()
        # One of them as int8 is 512 KiB, as float32 2 MiB.
        assert compiled.memory_analysis().temp_size_in_bytes < 700 << 10


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        Quantize(8),
        pytest.param(Quantize(4), marks=pytest.mark.nightly),
        Quantize(4, group_size=2),
        pytest.param(Quantize(8, embedding=True), marks=pytest.mark.nightly),
    ],
)
def test_a_model_decodes_the_same_ids(how, tied):
    config = dataclasses.replace(CONFIG, tied_embeddings=tied)
    params = quantised_model(config, how)
    _, copy = tiled(config, params)
    parts = jax.tree.leaves(copy, is_leaf=lambda node: isinstance(node, TiledIntegers))
    parts = [part for part in parts if isinstance(part, TiledIntegers)]
    assert len(parts) == 2 * 7 + how.embedding
    assert isinstance(copy["output"]["table"], TiledHead)
    assert isinstance(copy["embedding"]["table"], QuantisedTable) == how.embedding
    lm, prompts = LanguageModel(config, params), [[3, 5, 8], [60, 1]]
    options = {"max_new_tokens": 20, "eos_ids": []}
    found = lm.generate(prompts, **options)
    assert len({tuple(one) for one in found}) == 2
    engine = lm._engine()
    assert engine._tiled is not None
    other = LanguageModel(config, params)
    other._engine()._tiles = False
    assert other.generate(prompts, **options) == found
    assert other._engine()._tiled is None
