"""A matrix with a low-rank product beside it computes as their sum, whatever the base is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from glm_jax.adapters.low_rank import LowRank, merged
from glm_jax.adapters.quantised import Quantised
from glm_jax.models.weights import multiply

RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=(4, 2)), RANDOM.normal(size=(2, 3))
X = RANDOM.normal(size=(5, 4))


def low_rank(base, **changes):
    adapter = LowRank(base, jnp.float32(A), jnp.float32(B), 0.5)
    return dataclasses.replace(adapter, **changes)


def test_a_plain_base():
    base = RANDOM.normal(size=(4, 3))
    weight = low_rank(jnp.float32(base))
    expected = base + 0.5 * A @ B
    np.testing.assert_allclose(weight.used("float32"), expected, rtol=1e-6)
    np.testing.assert_allclose(multiply(jnp.float32(X), weight), X @ expected, rtol=1e-5)
    assert weight.rank == 2
    assert weight.shape == (4, 3)


def test_an_integer_base():
    values = np.array([[1, -2, 3], [4, 5, -6], [7, 0, 1], [-3, 2, 2]], np.int8)
    scale = np.float16([[0.5, 0.25, 0.125]])
    weight = low_rank(Quantised(jnp.asarray(values), jnp.asarray(scale), 1))
    expected = values * np.float64(scale) + 0.5 * A @ B
    np.testing.assert_allclose(weight.used("float32"), expected, rtol=1e-6)
    np.testing.assert_allclose(multiply(jnp.float32(X), weight), X @ expected, rtol=1e-5)


def test_several_axes_of_inputs_and_stacked_layers():
    base, a = RANDOM.normal(size=(6, 2, 2, 3)), RANDOM.normal(size=(6, 2, 2, 2))
    b = RANDOM.normal(size=(6, 2, 3))
    stacked = LowRank(jnp.float32(base), jnp.float32(a), jnp.float32(b), 2.0)
    expected = base + 2 * np.einsum("lijr,lrk->lijk", a, b)
    np.testing.assert_allclose(stacked.used("float32"), expected, rtol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[3], stacked)
    np.testing.assert_allclose(one.used("float32"), expected[3], rtol=1e-5)
    x = RANDOM.normal(size=(5, 2, 2))
    y = np.einsum("bij,ijk->bk", x, expected[3])
    np.testing.assert_allclose(one.multiply(jnp.float32(x), 2), y, rtol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "spec", "a", "b"),
    [
        (((4, 3), (4, 2), (2, 3)), ("fsdp", "tensor"), ("fsdp", None), (None, "tensor")),
        (
            ((6, 2, 4, 3), (6, 2, 4, 2), (6, 2, 3)),
            (None, "tensor", None, "fsdp"),
            (None, "tensor", None, None),
            (None, None, "fsdp"),
        ),
    ],
)
def test_how_the_arrays_are_split(shapes, spec, a, b):
    base, *factors = (jnp.zeros(shape) for shape in shapes)
    specs = LowRank(base, *factors, 1.0).specs(PartitionSpec(*spec))
    assert (specs.base, specs.a, specs.b) == tuple(PartitionSpec(*of) for of in (spec, a, b))


def test_a_cast_changes_the_base_alone():
    weight = low_rank(jnp.ones((4, 3), jnp.float32)).cast("bfloat16")
    assert weight.base.dtype == jnp.bfloat16
    assert weight.a.dtype == weight.b.dtype == jnp.float32


def test_dropout_is_of_the_inputs_of_a_alone_and_keeps_the_mean():
    base = jnp.float32(RANDOM.normal(size=(4, 3)))
    weight, x = low_rank(base, rate=0.5), jnp.float32(X)
    np.testing.assert_array_equal(weight.multiply(x, 1), low_rank(base).multiply(x, 1))
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = jax.vmap(lambda key: weight.dropping(key).multiply(x, 1))(keys)
    added = np.asarray(dropped - x @ base, np.float64)
    np.testing.assert_allclose(added.mean(0), 0.5 * X @ A @ B, atol=0.15)
    assert np.ptp(added, axis=0).min() > 0.5
    assert low_rank(base).dropping(keys[0]).key is None


def test_what_stands_beside_the_matrix():
    weight = low_rank(jnp.zeros((4, 3)))
    assert [array.shape for array in weight.beside] == [(4, 2), (2, 3)]
    assert dataclasses.replace(weight, a=None, b=None).beside == ()


def test_adapters_are_merged_in_the_dtype_of_their_base():
    base = jnp.float32(RANDOM.normal(size=(4, 3)))
    values, scale = jnp.ones((4, 3), jnp.int8), jnp.ones((1, 3), jnp.float16)
    params = {
        "one": low_rank(base.astype("bfloat16")),
        "two": low_rank(Quantised(values, scale, 1)),
        "three": base,
    }
    found = merged(params, "float32")
    assert [found[name].dtype for name in params] == ["bfloat16", "float32", "float32"]
    np.testing.assert_allclose(found["two"], 1 + 0.5 * A @ B, rtol=1e-6)
    expected = np.float32(params["one"].base) + 0.5 * A @ B
    np.testing.assert_allclose(np.float32(found["one"]), expected, rtol=2**-8)
    assert found["three"] is base
