"""Tensors with NaN or infinities in them are named."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from glm_jax.interop import finite
from glm_jax.interop.finite import Unusable, is_finite

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_one_odd_value_is_enough(dtype, monkeypatch):
    monkeypatch.setattr(finite, "_BLOCK", 8)
    largest = ml_dtypes.finfo(dtype).max
    tensor = np.full((5, 7), largest, dtype)
    tensor[::2] = -largest
    tensor[0, 0], tensor[1, 1] = 0.0, ml_dtypes.finfo(dtype).smallest_subnormal
    assert is_finite(tensor)
    assert is_finite(tensor.T)
    for odd in (np.nan, -np.nan, np.inf, -np.inf):
        for index in ((0, 0), (2, 3), (4, 6)):
            other = tensor.copy()
            other[index] = odd
            assert not is_finite(other)
            assert not is_finite(other.T)
            assert not is_finite(other[::-1])


def test_agrees_with_numpy():
    bits = np.random.default_rng(0).integers(0, 2**16, 3000, dtype=np.uint16)
    for one in bits[:, None]:
        assert is_finite(one.view(np.float16)) == np.isfinite(one.view(np.float16)).all()


def test_names_are_said_once_and_in_one_line(caplog):
    unusable = Unusable()
    unusable.look_at("good", np.ones(3, np.float32))
    unusable.warn("model")
    assert not caplog.records
    for name in ("a", "b", "a"):
        unusable.look_at(name, np.full(3, np.nan, np.float32))
    unusable.warn("model")
    assert [r.getMessage() for r in caplog.records] == ["NaN or infinite values in model: a, b"]


def test_arrays_where_they_lie(caplog):
    mesh = jax.make_mesh((1,), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    unusable = Unusable()
    unusable.look_at_leaf("good", jax.device_put(jnp.ones(4), sharding))
    unusable.look_at_leaf("bad", jax.device_put(jnp.array([1.0, jnp.inf]), sharding))
    unusable.warn("model")
    assert [r.getMessage() for r in caplog.records] == ["NaN or infinite values in model: bad"]


def test_arrays_of_accelerators_are_looked_at_there(caplog, monkeypatch):
    monkeypatch.setattr(finite, "_is_on_host", lambda leaf: False)
    unusable = Unusable()
    unusable.look_at_leaf("good", jnp.array([1.0, 2.0]))
    unusable.look_at_leaf("bad", jnp.array([1.0, jnp.nan]))
    unusable.warn("model")
    assert [r.getMessage() for r in caplog.records] == ["NaN or infinite values in model: bad"]
