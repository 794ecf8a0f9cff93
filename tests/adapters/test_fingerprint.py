"""A fingerprint tells models apart, and knows a model in any dtype and layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.adapters.fingerprint import agree, common, fingerprint, shortened
from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import MeshConfig
from glm_jax.models.params import create_params
from glm_jax.models.trees import cast, from_paths, split_params, to_paths, unstack_layers
from glm_jax.sharding.mesh import make_mesh
from tests.tiny_run import tiny_config

MESH = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def params():
    """Values of every size, float32, and below the normal numbers of float16 too."""
    drawn = create_params(tiny_config().resolved_model, MESH, 0)
    key = jax.random.key(1)
    return jax.tree.map(lambda leaf: leaf * jnp.exp(3 * jax.random.normal(key, leaf.shape)), drawn)


def quantised(params, *how):
    return quantise_params(dict(params), MESH, Quantize(*how))


def changed(params, path, change):
    leaves = to_paths(params)
    return from_paths({**leaves, path: change(leaves[path])})


def test_it_is_one_whatever_the_layout(params):
    assert fingerprint(params) == fingerprint(unstack_layers(params))
    integers = quantised(params, 4)
    assert fingerprint(integers) == fingerprint(unstack_layers(integers))


@pytest.mark.parametrize("first", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_copies_in_other_dtypes_are_the_same_model(params, first, dtype):
    """Copies of what a directory holds in `first`."""
    stored = cast(params, first)
    assert agree(fingerprint(stored), fingerprint(cast(stored, dtype)))


def test_one_changed_value_is_another_model(params):
    found = fingerprint(params)
    for path in ("layers/mlp/up/kernel", "final_norm/scale", "embedding/table"):
        other = fingerprint(changed(params, path, lambda leaf: leaf.at[-1].multiply(1.02)))
        assert not agree(found, other)
        assert {name for name in found if found[name] != other[name]} == {path}
        assert shortened(found) != shortened(other)


def test_where_a_value_stands_counts(params):
    """Layers in another order, rows in another order, a transposed matrix."""
    found = fingerprint(params)
    for change in (
        lambda leaf: leaf[::-1],
        lambda leaf: leaf[:, ::-1],
        lambda leaf: jnp.swapaxes(leaf, 1, 2),
    ):
        assert not agree(found, fingerprint(changed(params, "layers/mlp/up/kernel", change)))


def test_integers_are_compared_with_integers_of_the_same_kind(params):
    plain, int8, int4 = params, quantised(params, 8), quantised(params, 4)
    for one, other in ((plain, int8), (plain, int4), (int8, int4)):
        assert agree(fingerprint(one), fingerprint(other))
    moved = jax.tree.map(lambda leaf: leaf, int4)
    up = to_paths(moved)["layers/mlp/up/kernel"]
    values = up.values.at[0, 0, 0].set(-up.values[0, 0, 0] + 1)
    moved = changed(moved, "layers/mlp/up/kernel", lambda leaf: type(leaf)(values, leaf.scale, 1))
    assert not agree(fingerprint(int4), fingerprint(moved))
    # A fine-tuned relative differs in its norms too.
    relative = changed(int8, "final_norm/scale", lambda leaf: leaf * 1.05)
    assert not agree(fingerprint(plain), fingerprint(relative))


def test_nothing_in_common_is_no_agreement(params):
    one, other = split_params(params, "layers/.*")
    assert not agree(fingerprint(one), fingerprint(other))
    assert agree(fingerprint(one), common(fingerprint(params), fingerprint(one)))


def test_of_an_adapter_its_base_counts(params):
    zeros = jnp.zeros((2, 16, 1)), jnp.ones((2, 1, 64))
    over = changed(params, "layers/mlp/up/kernel", lambda leaf: LowRank(leaf, *zeros, 1.0))
    assert fingerprint(over) == fingerprint(params)
    frozen = changed(params, "layers/mlp/up/kernel", lambda leaf: LowRank(leaf, None, None, 1.0))
    assert fingerprint(frozen) == fingerprint(params)
    without = changed(params, "layers/mlp/up/kernel", lambda leaf: LowRank(None, *zeros, 1.0))
    assert set(fingerprint(params)) - set(fingerprint(without)) == {"layers/mlp/up/kernel"}


def test_the_index_is_hashed_on_all_axes():
    """Sums of 2 x 3 values by hand: value times an odd hash of the index, modulo 2^32."""

    def hashed(index):
        x = (index ^ (index >> 16)) * 0x7FEB352D % 2**32
        return (x ^ (x >> 15)) * 0x846CA68B % 2**32

    values = np.array([[1, 2, 3], [4, 5, 6]], np.int8)
    sums = [
        sum(int(v) * (hashed(i) >> shift | 1) for i, v in enumerate(values.flat)) % 2**32
        for shift in (0, 7)
    ]
    from glm_jax.adapters.fingerprint import _sums_of

    np.testing.assert_array_equal(_sums_of(jnp.asarray(values), False)[0], [sums])
