import jax.numpy as jnp
import numpy as np

from glm_jax.attention.gpu.ranges import block_ranges
from glm_jax.attention.intervals import block_kinds
from glm_jax.batch import prefix_bounds


def two_segments():
    """The example of the module: a prefix length of 2 of four slots, then a causal segment."""
    first, second = prefix_bounds(2, 4), prefix_bounds(0, 4)
    start = np.concatenate([first[0], second[0] + 4])[None]
    end = np.concatenate([first[1], second[1] + 4])[None]
    return block_kinds(jnp.asarray(start), jnp.asarray(end), 2, 2, 4)


def test_the_picture():
    kinds = two_segments()
    by_query = [[0, 0, 1, 1], [0, 0, 1, 2], [2, 3, 3, 3], [2, 2, 3, 4]]
    np.testing.assert_array_equal(block_ranges(kinds)[0], by_query)
    by_key = [[0, 0, 2, 2], [1, 2, 2, 2], [2, 3, 4, 4], [3, 4, 4, 4]]
    np.testing.assert_array_equal(block_ranges(jnp.swapaxes(kinds, 1, 2))[0], by_key)


def test_a_block_that_meets_nothing_has_no_blocks():
    kinds = jnp.zeros((1, 2, 3), jnp.int32)
    ranges = np.asarray(block_ranges(kinds))
    assert ranges.dtype == np.int32
    assert (ranges == ranges[..., :1]).all()


def test_blocks_without_a_mask_are_whole_whatever_the_bounds():
    """And every block that is needed lies in the range: random kinds, every one of them."""
    kinds = np.random.default_rng(0).integers(0, 3, (50, 6, 5)).astype(np.int32)
    ranges = np.asarray(block_ranges(jnp.asarray(kinds)))
    assert (np.diff(ranges, axis=-1) >= 0).all()
    for row, (first, whole_from, whole_to, last) in zip(
        kinds.reshape(-1, 5), ranges.reshape(-1, 4), strict=True
    ):
        needed, whole = np.flatnonzero(row > 0), np.flatnonzero(row == 2)
        assert (first, last) == ((needed[0], needed[-1] + 1) if len(needed) else (0, 0))
        assert (row[whole_from:whole_to] == 2).all()
        if len(whole):
            assert whole_from == whole[0]
            assert whole_to > whole_from
