"""Factors beside matrices, taken from them again, and folded into them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.adapters.factors import (
    Factors,
    check_foldable,
    factors_of,
    folded,
    has_factors,
    with_factors,
)
from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import Quantised
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.trees import is_stacked, to_paths, unstack_layers
from glm_jax.sharding.mesh import make_mesh

RANDOM = np.random.default_rng(0)
QUERY, OUT = "layers/1/attention/query/kernel", "layers/0/attention/out/kernel"


def array(*shape):
    return np.float32(RANDOM.normal(size=shape))


QUERIES, OUTS = array(2, 4, 2, 3), array(2, 2, 3, 4)
A = array(4, 5)
FACTORS = {
    QUERY: Factors(A, array(5, 2, 3), 0.5, 0.1),
    "layers/1/attention/key/kernel": Factors(A, array(5, 2, 3), 0.5, 0.1),
    OUT: Factors(array(2, 3, 2), array(2, 4), 2.0),
}


def params(dtype="float32"):
    """Stacked: two layers of D = 4 and two heads of 3."""
    attention = {
        "query": {"kernel": jnp.asarray(QUERIES, dtype)},
        "key": {"kernel": jnp.asarray(QUERIES, dtype)},
        "out": {"kernel": jnp.asarray(OUTS, dtype)},
    }
    return {"layers": {"attention": attention}, "embedding": {"table": jnp.ones((7, 4), dtype)}}


def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def adapted(base=None):
    return with_factors(params() if base is None else base, FACTORS, mesh())


def test_they_stand_beside_matrices_of_listed_layers():
    found = adapted()
    assert not is_stacked(found)
    leaves = to_paths(found)
    assert {path for path, leaf in leaves.items() if isinstance(leaf, LowRank)} == FACTORS.keys()
    query = leaves[QUERY]
    np.testing.assert_array_equal(query.base, QUERIES[1])
    np.testing.assert_array_equal(query.a, A)
    assert (query.scale, query.rate, query.rank) == (0.5, 0.1, 5)
    assert query.a is leaves["layers/1/attention/key/kernel"].a
    x = array(2, 3)
    y = np.einsum("nh,nhd->d", x, OUTS[0]) + 2 * np.einsum(
        "nh,nhr,rd->d", x, FACTORS[OUT].a, FACTORS[OUT].b
    )
    np.testing.assert_allclose(leaves[OUT].multiply(jnp.asarray(x)[None], 2)[0], y, rtol=1e-5)


def test_the_base_is_shared_where_layers_are_listed():
    base = unstack_layers(params())
    found = to_paths(adapted(base))
    for path, leaf in to_paths(base).items():
        assert (found[path].base if path in FACTORS else found[path]) is leaf


def test_they_are_taken_from_it_again():
    found = factors_of(adapted())
    assert found.keys() == FACTORS.keys()
    for path, one in found.items():
        np.testing.assert_array_equal(one.a, FACTORS[path].a)
        np.testing.assert_array_equal(one.b, FACTORS[path].b)
        assert (one.scale, one.rate, one.rank) == (
            FACTORS[path].scale,
            FACTORS[path].rate,
            len(FACTORS[path].b),
        )
    assert factors_of(params()) == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_folded_in_they_are_the_sum_in_the_dtype_of_the_base(dtype):
    base = params(dtype)
    found = folded(adapted(base), "float16")
    assert not has_factors(found)
    leaves, before = to_paths(found), to_paths(unstack_layers(base))
    for path, leaf in leaves.items():
        assert leaf.dtype == dtype
        expected = np.float32(before[path])
        if path in FACTORS:
            one = FACTORS[path]
            expected = jnp.asarray(expected + one.scale * np.tensordot(one.a, one.b, 1), dtype)
        np.testing.assert_allclose(np.float32(leaf), np.float32(expected), rtol=1e-5, atol=1e-6)
    assert folded(params(), "float32")["embedding"]["table"].shape == (7, 4)


def test_over_integers_they_are_folded_only_on_request():
    base = unstack_layers(params())
    values, scale = np.int8([[1, -2, 3, 4]] * 6).reshape(2, 3, 4), np.float16([[0.5, 0.25, 1, 2]])
    quantised = Quantised(jnp.asarray(values), jnp.asarray(scale), 1)
    for layer in ("0", "1"):
        base["layers"][layer]["attention"]["out"]["kernel"] = quantised
    found = adapted(base)
    assert has_factors(found)
    with pytest.raises(UserError, match=r"this model's are quantised: .*dequantize=True"):
        folded(found, "float32")
    with pytest.raises(UserError, match="load the base as it was before"):
        check_foldable(found)
    leaves = to_paths(folded(found, "float32", dequantize=True))
    plain = values * np.float32(scale)
    product = 2 * np.tensordot(FACTORS[OUT].a, FACTORS[OUT].b, 1)
    np.testing.assert_allclose(leaves[OUT], plain + product, rtol=1e-5)
    np.testing.assert_array_equal(leaves["layers/1/attention/out/kernel"], plain)
    check_foldable(base)
    check_foldable(adapted())
