import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.gpu.tiles import Tiling, hide, loop, matmul
from glm_jax.attention.intervals import HIDDEN


@pytest.mark.parametrize("key_axis", [0, 1])
def test_keys_outside_the_interval_are_hidden(key_axis):
    """Keys 8..11 for two queries that see [9, 11) and nothing."""
    start, end = jnp.array([9, 9]), jnp.array([11, 9])
    s = jnp.ones((2, 4) if key_axis else (4, 2))
    hidden = np.asarray(hide(s, start, end, 8, key_axis))
    hidden = hidden if key_axis else hidden.T
    np.testing.assert_array_equal(hidden == 1, [[False, True, True, False], [False] * 4])
    assert (hidden[1] == np.float32(HIDDEN)).all()


def test_products_are_summed_in_float32():
    """A sum of 300 ones is no bfloat16."""
    a, b = jnp.ones((1, 300), jnp.bfloat16), jnp.ones((300, 1), jnp.bfloat16)
    assert matmul(a, b, 0) == 300
    assert matmul(a, b.T, 1).dtype == jnp.float32


def test_only_blocks_that_are_not_whole_are_masked():
    """Each block is run once; what is traced is one step a loop."""
    count = jnp.zeros((2, 6), jnp.int32)

    def step(block, count, masked):
        return count.at[int(masked), block].add(1)

    count = np.asarray(loop(jnp.array([1, 2, 4, 5]), step, count))
    np.testing.assert_array_equal(count, [[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]])


def test_triton_is_told_the_tiling():
    params = Tiling(block_q=64, block_k=32, num_warps=8, num_stages=3).compiler_params()
    assert (params.num_warps, params.num_stages) == (8, 3)
