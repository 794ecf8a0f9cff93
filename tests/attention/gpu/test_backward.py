"""The backward kernels for GPUs, interpreted, on numbers that can be checked by hand.

With equal scores each of n keys has the probability 1 / n, so every gradient is a mean. The log of
the sum and `delta` are given here, as the forward pass would give them.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.gpu.backward import key_gradient, query_gradient
from glm_jax.attention.gpu.tiles import Plan, Tiling
from glm_jax.attention.intervals import HIDDEN

TILING = Tiling(block_q=16, block_k=16, num_warps=4, num_stages=2)
PLAN = Plan(TILING, TILING, TILING, interpret=True)
T, S, H = 32, 48, 16  # two blocks of queries, three of keys


class Case:
    """One row, every query of which sees the keys [start, end), all scores 0; d_out is 1 in its
    first feature, v of key s is s there, and k of key s is s in its second."""

    def __init__(self, start, end, heads=1, kv_heads=1):
        self.start, self.end = np.array(start), np.array(end)
        self.count = np.maximum(self.end - self.start, 0)
        self.q, self.d_out = np.zeros((2, T, heads, H))
        self.q[..., 2] = 1 + np.arange(heads)
        self.d_out[..., 0] = 1
        self.k, self.v = np.zeros((2, S, kv_heads, H))
        self.k[..., 1] = self.v[..., 0] = np.arange(S)[:, None]
        with np.errstate(divide="ignore"):
            lse = np.where(self.count > 0, np.log(self.count), HIDDEN)
        # do . o: the mean of the values that are seen.
        mean = np.where(self.count > 0, (self.start + self.end - 1) / 2, 0)
        self.lse, self.delta = np.tile(lse, (heads, 1)), np.tile(mean, (heads, 1))

    def run(self, kernel, ranges):
        names = ("q", "k", "v", "start", "end", "lse", "d_out", "delta")
        kinds = (jnp.int32 if name in ("start", "end") else jnp.float32 for name in names)
        arrays = [
            jnp.asarray(getattr(self, name), kind)[None]
            for name, kind in zip(names, kinds, strict=True)
        ]
        found = kernel(*arrays, jnp.asarray(ranges, jnp.int32)[None], PLAN)
        return [np.asarray(x[0]) for x in (found if isinstance(found, list | tuple) else [found])]


def test_the_gradient_of_a_query_is_a_covariance():
    """dq = sum of p (v - mean v) k: over 48 keys 0..47 their variance, (48^2 - 1) / 12."""
    (dq,) = Case([0] * T, [S] * T).run(query_gradient, [[0, 0, 3, 3]] * 2)
    np.testing.assert_allclose(dq[:, 0, 1], (48**2 - 1) / 12, rtol=1e-5)
    np.testing.assert_allclose(np.delete(dq, 1, axis=2), 0, atol=1e-4)


def test_queries_see_their_intervals_only():
    """Query i five keys, variance 2; the last three none, whose gradient is exactly 0."""
    start = np.arange(T)
    case = Case(start, np.where(start < T - 3, start + 5, start))
    (dq,) = case.run(query_gradient, [[0, 3, 3, 3]] * 2)
    np.testing.assert_allclose(dq[:-3, 0, 1], 2, rtol=1e-4)
    assert (dq[-3:] == 0).all()
    dk, dv = case.run(key_gradient, [[0, 2, 2, 2]] * 3)
    # Key s is seen by those of the queries s-4..s that are there, each with 1/5.
    seen_by = [sum(s - 4 <= i <= s for i in range(T - 3)) for s in range(S)]
    np.testing.assert_allclose(dv[:, 0, 0], np.array(seen_by) / 5, rtol=1e-5, atol=1e-7)
    # dk = sum of p (v - mean v) q: from -2/5 to 2/5, 0 for a key whose five queries are all there.
    steps = [sum((s - i - 2) / 5 for i in range(T - 3) if s - 4 <= i <= s) for s in range(S)]
    np.testing.assert_allclose(dk[:, 0, 2], steps, atol=1e-5)
    np.testing.assert_allclose(steps[4:29], 0, atol=1e-12)
    assert (dk[33:] == 0).all()


def test_blocks_outside_the_range_are_not_loaded():
    case = Case([0] * T, [16] * T)
    case.k[16:], case.v[16:] = np.nan, np.nan
    (dq,) = case.run(query_gradient, [[0, 0, 1, 1]] * 2)
    np.testing.assert_allclose(dq[:, 0, 1], (16**2 - 1) / 12, rtol=1e-5)
    dk, dv = case.run(key_gradient, [[0, 0, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(dv[:16, 0, 0], T / 16, rtol=1e-6)
    assert (dk[16:] == 0).all()
    assert (dv[16:] == 0).all()


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_keys_sum_over_the_queries_of_all_heads_that_share_them(kv_heads):
    case = Case([0] * T, [S] * T, heads=4, kv_heads=kv_heads)
    dk, dv = case.run(key_gradient, [[0, 0, 2, 2]] * 3)
    group = 4 // kv_heads
    np.testing.assert_allclose(dv[:, :, 0], group * T / S, rtol=1e-5)
    # q of head n is n + 1, so a group's queries sum to 1 + 2 + 3 + 4, or 1 + 2 and 3 + 4.
    heads = np.add.reduceat(np.arange(1, 5), np.arange(0, 4, group))
    expected = T / S * (np.arange(S) - 23.5)[:, None] * heads
    np.testing.assert_allclose(dk[:, :, 2], expected, rtol=1e-4, atol=1e-4)
    (dq,) = case.run(query_gradient, [[0, 0, 3, 3]] * 2)
    np.testing.assert_allclose(dq[:, :, 1], (48**2 - 1) / 12, rtol=1e-5)


def test_a_gradient_of_the_log_of_the_sum_is_in_delta():
    """dl = 1 lowers delta by 1: dq gains the mean of the keys, dv nothing."""
    case = Case([0] * T, [S] * T)
    case.delta = case.delta - 1
    (dq,) = case.run(query_gradient, [[0, 0, 3, 3]] * 2)
    np.testing.assert_allclose(dq[:, 0, 1], (48**2 - 1) / 12 + 23.5, rtol=1e-5)
    _, dv = case.run(key_gradient, [[0, 0, 2, 2]] * 3)
    np.testing.assert_allclose(dv[:, 0, 0], T / S, rtol=1e-6)
