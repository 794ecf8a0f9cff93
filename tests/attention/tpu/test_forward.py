"""The forward kernel for TPUs, interpreted, on numbers that can be checked by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.intervals import HIDDEN, block_kinds, list_steps
from glm_jax.attention.tpu.forward import forward
from glm_jax.attention.tpu.tiles import Plan

T, S, H = 128, 384, 128  # one block of queries, three of keys
PLAN = Plan(
    num_heads=1,
    num_kv_heads=1,
    width=H,
    pack=1,
    block_q=128,
    block_k=128,
    num_keys=S,
    scale=0.5,
    dropout_rate=0.0,
    interpret=True,
)


def run(plan, q, k, v, start, end, seeds=None):
    """One row: q [T, N H], k and v [S, K H]; out [T, N, H] and lse [N, T]."""
    start, end = (jnp.asarray(x, jnp.int32)[None] for x in (start, end))
    steps = list_steps(block_kinds(start, end, plan.block_q, plan.block_k, S // plan.block_k))
    offsets = jnp.arange(T, dtype=jnp.int32) * S
    seeds = jnp.zeros(2 * plan.num_heads, jnp.int32) if seeds is None else jnp.asarray(seeds)
    arrays = (jnp.asarray(x, jnp.float32)[None] for x in (q, k, v))
    rows = (start[:, None], end[:, None], offsets[None, None])
    out, lse = forward(*arrays, rows, seeds, steps, plan)
    out = np.asarray(out[0]).reshape(T, plan.num_heads, plan.head_dim)
    return out, np.asarray(lse[0, :, 0])


def values(heads=1, head_dim=H):
    """Key s of head m has the value s + 1000 m in its first feature, 1 in the others."""
    v = np.ones((S, heads, head_dim))
    v[..., 0] = np.arange(S)[:, None] + 1000 * np.arange(heads)
    return v.reshape(S, -1)


def zeros(heads=1, head_dim=H):
    return np.zeros((T, heads * head_dim)), np.zeros((S, heads * head_dim))


def test_equal_scores_give_the_mean_and_the_log_of_the_count():
    out, lse = run(PLAN, *zeros(), values(), [0] * T, [S] * T)
    np.testing.assert_allclose(out[:, 0, 0], 191.5, rtol=1e-6)  # (0 + 383) / 2
    np.testing.assert_allclose(out[:, 0, 1:], 1.0, rtol=1e-6)
    np.testing.assert_allclose(lse, np.log(384), rtol=1e-6)


def test_each_query_sees_its_interval():
    """Query i the keys [i + 100, i + 105), over a border of blocks; the last three none."""
    start = np.arange(T) + 100
    end = np.where(start < T + 97, start + 5, start)
    out, lse = run(PLAN, *zeros(), values(), start, end)
    np.testing.assert_allclose(out[:-3, 0, 0], start[:-3] + 2, rtol=1e-6)
    np.testing.assert_allclose(lse[0, :-3], np.log(5), rtol=1e-6)
    assert (out[-3:] == 0).all()
    assert (lse[0, -3:] == np.float32(HIDDEN)).all()


def test_scores_are_scaled_and_a_larger_one_shrinks_what_came_before():
    """Products 0, 2 ln 3 and 2000 in the three blocks, times 0.5."""
    q, k = zeros()
    q[:, 0], k[128:256, 0] = 1, 2 * np.log(3)
    out, lse = run(PLAN, q, k, values(), [0] * T, [256] * T)
    np.testing.assert_allclose(out[:, 0, 0], (63.5 + 3 * 191.5) / 4, rtol=1e-6)
    np.testing.assert_allclose(lse[0], np.log(128 * 4), rtol=1e-6)
    k[256:, 0] = 2000
    out, lse = run(PLAN, q, k, values(), [0] * T, [S] * T)
    np.testing.assert_allclose(out[:, 0, 0], 319.5, rtol=1e-6)
    np.testing.assert_allclose(lse[0], 1000 + np.log(128), rtol=1e-6)


def test_blocks_that_nobody_sees_are_not_touched():
    k, v = zeros()[1], values()
    k[:128], v[:128], k[256:], v[256:] = [np.nan] * 4
    out, _ = run(PLAN, zeros()[0], k, v, [130] * T, [250] * T)
    np.testing.assert_allclose(out[:, 0, 0], 189.5, rtol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads_share_keys_in_groups(kv_heads):
    plan = dataclasses.replace(PLAN, num_heads=4, num_kv_heads=kv_heads)
    out, lse = run(plan, zeros(4)[0], zeros(kv_heads)[1], values(kv_heads), [0] * T, [S] * T)
    expected = 191.5 + 1000 * (np.arange(4) // (4 // kv_heads))
    np.testing.assert_allclose(out[:, :, 0], np.tile(expected, (T, 1)), rtol=1e-6)
    assert lse.shape == (4, T)


def test_narrow_heads_lie_side_by_side_in_a_block():
    """Two heads of 64 in 128 columns: each has its own scores and values."""
    plan = dataclasses.replace(PLAN, num_heads=2, num_kv_heads=2, pack=2)
    q, k = zeros(2, 64)
    q[:, 64], k[128:256, 64] = 1, 2 * np.log(3)  # of the second head
    out, lse = run(plan, q, k, values(2, 64), [0] * T, [256] * T)
    np.testing.assert_allclose(out[:, 0, 0], 127.5, rtol=1e-6)
    np.testing.assert_allclose(out[:, 1, 0], 1000 + (63.5 + 3 * 191.5) / 4, rtol=1e-6)
    np.testing.assert_allclose(lse[:, 0], [np.log(256), np.log(512)], rtol=1e-6)


def test_dropout_scales_what_stays_and_leaves_the_sum_alone():
    """Of 384 equal weights 1/4 goes, and the others count 4/3: ones stay ones in the mean."""
    plan = dataclasses.replace(PLAN, dropout_rate=0.25)
    out, lse = run(plan, *zeros(), values(), [0] * T, [S] * T, seeds=np.array([12345, 97531]))
    np.testing.assert_allclose(lse, np.log(384), rtol=1e-6)
    ones = out[:, 0, 1]
    # The standard deviation of a query's sum: 4/3 sqrt(384 * 3/16) / 384.
    deviation = 4 / 3 * np.sqrt(384 * 3 / 16) / 384
    assert abs(ones.mean() - 1) < 5 * deviation / np.sqrt(T)
    assert 0.7 * deviation < ones.std() < 1.3 * deviation
    # Whole numbers of keys stay.
    stay = ones * 384 * 3 / 4
    np.testing.assert_allclose(stay, np.round(stay), atol=1e-3)
