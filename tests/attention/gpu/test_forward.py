"""The forward kernel for GPUs, interpreted, on numbers that can be checked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.gpu.forward import forward
from glm_jax.attention.gpu.tiles import Plan, Tiling
from glm_jax.attention.intervals import HIDDEN

TILING = Tiling(block_q=16, block_k=16, num_warps=4, num_stages=2)
PLAN = Plan(TILING, TILING, TILING, interpret=True)
T, S, H = 32, 48, 16  # two blocks of queries, three of keys


def run(q, k, v, start, end, ranges):
    """One row; ranges [2, 4] are those of the two blocks of queries."""
    bounds = (jnp.asarray(x, jnp.int32)[None] for x in (start, end, ranges))
    out, lse = forward(*(jnp.asarray(x, jnp.float32)[None] for x in (q, k, v)), *bounds, PLAN)
    return np.asarray(out[0]), np.asarray(lse[0])


def values(kv_heads=1):
    """Key s of head m has the value s + 100 m in its first feature, 1 in the others."""
    v = np.ones((S, kv_heads, H))
    v[..., 0] = np.arange(S)[:, None] + 100 * np.arange(kv_heads)
    return v


ALL = [[0, 0, 3, 3]] * 2  # every block, none masked


def test_equal_scores_give_the_mean_and_the_log_of_the_count():
    out, lse = run(np.zeros((T, 1, H)), np.zeros((S, 1, H)), values(), [0] * T, [S] * T, ALL)
    np.testing.assert_allclose(out[:, 0, 0], 23.5, rtol=1e-6)  # (0 + 47) / 2
    np.testing.assert_allclose(out[:, 0, 1:], 1.0, rtol=1e-6)
    np.testing.assert_allclose(lse, np.log(48), rtol=1e-6)


def test_each_query_sees_its_interval():
    """Query i the keys [i, i + 5), over the borders of blocks; the last three none."""
    start = np.arange(T)
    end = np.where(start < T - 3, start + 5, start)
    masked = [[0, 3, 3, 3]] * 2
    out, lse = run(np.zeros((T, 1, H)), np.zeros((S, 1, H)), values(), start, end, masked)
    np.testing.assert_allclose(out[:-3, 0, 0], start[:-3] + 2, rtol=1e-6)
    np.testing.assert_allclose(lse[0, :-3], np.log(5), rtol=1e-6)
    assert (out[-3:] == 0).all()
    assert (lse[0, -3:] == np.float32(HIDDEN)).all()


def test_blocks_outside_the_range_are_not_loaded_and_a_mask_hides_within():
    """The first block of queries sees keys 0..19: a whole block and four of the next one."""
    k, v = np.zeros((S, 1, H)), values()
    k[32:], v[32:] = np.nan, np.nan
    ranges = [[0, 0, 1, 2], [1, 1, 2, 2]]
    out, _ = run(np.zeros((T, 1, H)), k, v, [0] * 16 + [16] * 16, [20] * 16 + [32] * 16, ranges)
    np.testing.assert_allclose(out[:16, 0, 0], 9.5, rtol=1e-6)  # 0..19
    np.testing.assert_allclose(out[16:, 0, 0], 23.5, rtol=1e-6)  # 16..31


def test_a_larger_score_in_a_later_block_shrinks_what_came_before():
    """Scores 0, ln 3 and 1000 in the three blocks; q.k is the score, q being scaled already."""
    q = np.zeros((T, 1, H))
    q[..., 0] = 1
    k = np.zeros((S, 1, H))
    k[16:32, 0, 0] = np.log(3)
    end = [32] * 16 + [48] * 16
    out, lse = run(q, k, values(), [0] * T, end, [[0, 0, 2, 2], [0, 0, 3, 3]])
    np.testing.assert_allclose(out[:16, 0, 0], (7.5 + 3 * 23.5) / 4, rtol=1e-6)
    np.testing.assert_allclose(lse[0, :16], np.log(16 * 4), rtol=1e-6)
    k[32:, 0, 0] = 1000
    out, lse = run(q, k, values(), [0] * T, end, [[0, 0, 2, 2], [0, 0, 3, 3]])
    np.testing.assert_allclose(out[16:, 0, 0], 39.5, rtol=1e-6)
    np.testing.assert_allclose(lse[0, 16:], 1000 + np.log(16), rtol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads_share_keys_in_groups(kv_heads):
    k = np.zeros((S, kv_heads, H))
    out, lse = run(np.zeros((T, 4, H)), k, values(kv_heads), [0] * T, [S] * T, ALL)
    expected = 23.5 + 100 * (np.arange(4) // (4 // kv_heads))
    np.testing.assert_allclose(out[:, :, 0], np.tile(expected, (T, 1)), rtol=1e-6)
    assert lse.shape == (4, T)
