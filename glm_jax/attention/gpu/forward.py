"""The forward kernel for GPUs: softmax over the keys of an interval, block by block.

Each program has one block of queries of one head, and loops over blocks of keys. Registers hold the
largest score so far, the sum of exponentials and the weighted sum of values, which are rescaled at
a larger score (FlashAttention, arXiv:2205.14135, algorithm 1).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Float, Int

from glm_jax.attention.gpu.tiles import LOG2E, Plan, Tiling, block_of, hide, loop, matmul
from glm_jax.attention.intervals import FLOOR, HIDDEN


def forward(
    q: Float[jax.Array, "B T N H"],
    k: Float[jax.Array, "B S K H"],
    v: Float[jax.Array, "B S K H"],
    start: Int[jax.Array, "B T"],
    end: Int[jax.Array, "B T"],
    ranges: Int[jax.Array, "B blocks 4"],
    plan: Plan,
) -> tuple[Float[jax.Array, "B T N H"], Float[jax.Array, "B N T"]]:
    """Runs the kernel.

    Args:
      q: [B, T, N, H], scaled; T is a multiple of block_q.
      k, v: [B, S, K, H]; S is a multiple of block_k.
      start, end: [B, T] int32.
      ranges: [B, T / block_q, 4] of `block_ranges`, by query.

    Returns:
      [B, T, N, H] in the dtype of v, and the log-sum-exp of the scores, float32 [B, N, T].
    """
    batch, length, heads, head_dim = q.shape
    size, group = k.shape[1], heads // k.shape[2]
    tiling = plan.forward
    queries = pl.BlockSpec((None, tiling.block_q, None, head_dim), lambda i, b, n: (b, i, n, 0))
    keys = pl.BlockSpec((None, size, None, head_dim), lambda i, b, n: (b, 0, n // group, 0))
    row = pl.BlockSpec((None, tiling.block_q), lambda i, b, n: (b, i))
    return pl.pallas_call(
        functools.partial(_kernel, tiling=tiling),
        grid=(length // tiling.block_q, batch, heads),
        in_specs=[
            *(queries, keys, keys, row, row),
            pl.BlockSpec((None, None, 4), lambda i, b, n: (b, i, 0)),
        ],
        out_specs=[
            queries,
            pl.BlockSpec((None, None, tiling.block_q), lambda i, b, n: (b, n, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, v.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        compiler_params=tiling.compiler_params(),
        interpret=plan.interpret,
        name="interval_attention_gpu_forward",
    )(q, k, v, start, end, ranges)


def _kernel(q_ref, k_ref, v_ref, start_ref, end_ref, ranges, out, lse, *, tiling: Tiling):
    q, start, end = q_ref[...], start_ref[...], end_ref[...]

    def step(block, carry, masked: bool):
        largest, total, summed = carry
        slots = block_of(tiling.block_k, block)
        s = matmul(q, k_ref[slots, :], 1)
        if masked:
            s = hide(s, start, end, block * tiling.block_k, 1)
        now = jnp.maximum(largest, jnp.max(s, axis=1))
        weights = jnp.exp2(s * LOG2E - (now * LOG2E)[:, None])
        shrink = jnp.exp2((largest - now) * LOG2E)
        total = shrink * total + jnp.sum(weights, axis=1)
        v = v_ref[slots, :]
        summed = shrink[:, None] * summed + matmul(weights.astype(v.dtype), v, 0)
        return now, total, summed

    zeros = jnp.zeros(tiling.block_q, jnp.float32)
    carry = (zeros + FLOOR, zeros, jnp.zeros(q.shape, jnp.float32))
    largest, total, summed = loop(ranges, step, carry)
    share = jnp.where(total > 0.0, total, 1.0)
    lse[...] = jnp.where(total > 0.0, largest + lax.log(share), HIDDEN)
    out[...] = (summed / share[:, None]).astype(out.dtype)
