"""The backward kernels for GPUs: recompute the probabilities from the log-sum-exp, then gradients.

With p the probabilities, o the output and l the log-sum-exp of a query,

    ds = p (dp - delta)      dp = do . v      delta = do . o - dl
    dq = ds k                dk = ds^T q      dv = p^T do

(FlashAttention, arXiv:2205.14135, appendix B, with q already scaled, and with dl, since prefix and
interval are merged by l). One kernel loops over the keys of a block of queries and writes dq.
Another loops over the queries of all heads that share a block of keys and writes dk and dv. Neither
writes partial sums.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Float, Int

from glm_jax.attention.gpu.tiles import LOG2E, Plan, Tiling, block_of, hide, loop, matmul
from glm_jax.attention.intervals import FLOOR


def query_gradient(
    q: Float[jax.Array, "B T N H"],
    k: Float[jax.Array, "B S K H"],
    v: Float[jax.Array, "B S K H"],
    start: Int[jax.Array, "B T"],
    end: Int[jax.Array, "B T"],
    lse: Float[jax.Array, "B N T"],
    d_out: Float[jax.Array, "B T N H"],
    delta: Float[jax.Array, "B N T"],
    ranges: Int[jax.Array, "B blocks 4"],
    plan: Plan,
) -> Float[jax.Array, "B T N H"]:
    """dq [B, T, N, H]; `lse` and `delta` are [B, N, T], the rest as in `forward`."""
    batch, length, heads, head_dim = q.shape
    size, group = k.shape[1], heads // k.shape[2]
    tiling = plan.query_gradient
    queries = pl.BlockSpec((None, tiling.block_q, None, head_dim), lambda i, b, n: (b, i, n, 0))
    keys = pl.BlockSpec((None, size, None, head_dim), lambda i, b, n: (b, 0, n // group, 0))
    row = pl.BlockSpec((None, tiling.block_q), lambda i, b, n: (b, i))
    head_row = pl.BlockSpec((None, None, tiling.block_q), lambda i, b, n: (b, n, i))
    return pl.pallas_call(
        functools.partial(_query_kernel, tiling=tiling),
        grid=(length // tiling.block_q, batch, heads),
        in_specs=[
            *(queries, keys, keys, row, row, head_row, queries, head_row),
            pl.BlockSpec((None, None, 4), lambda i, b, n: (b, i, 0)),
        ],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=tiling.compiler_params(),
        interpret=plan.interpret,
        name="interval_attention_gpu_query_gradient",
    )(q, k, v, start, end, lse, d_out, delta, ranges)


def _query_kernel(*refs, tiling: Tiling):
    q_ref, k_ref, v_ref, start_ref, end_ref, lse_ref, d_out_ref, delta_ref, ranges, dq = refs
    q, d_out, start, end = q_ref[...], d_out_ref[...], start_ref[...], end_ref[...]
    # A query without keys has the log-sum-exp HIDDEN; raised to FLOOR its probabilities are 0.
    shift = (jnp.maximum(lse_ref[...], FLOOR) * LOG2E)[:, None]
    delta = delta_ref[...][:, None]

    def step(block, summed, masked: bool):
        slots = block_of(tiling.block_k, block)
        k = k_ref[slots, :]
        s = matmul(q, k, 1)
        if masked:
            s = hide(s, start, end, block * tiling.block_k, 1)
        p = jnp.exp2(s * LOG2E - shift)
        ds = p * (matmul(d_out, v_ref[slots, :], 1) - delta)
        return summed + matmul(ds.astype(k.dtype), k, 0)

    summed = loop(ranges, step, jnp.zeros(q.shape, jnp.float32))
    dq[...] = summed.astype(dq.dtype)


def key_gradient(
    q: Float[jax.Array, "B T N H"],
    k: Float[jax.Array, "B S K H"],
    v: Float[jax.Array, "B S K H"],
    start: Int[jax.Array, "B T"],
    end: Int[jax.Array, "B T"],
    lse: Float[jax.Array, "B N T"],
    d_out: Float[jax.Array, "B T N H"],
    delta: Float[jax.Array, "B N T"],
    ranges: Int[jax.Array, "B blocks 4"],
    plan: Plan,
) -> tuple[Float[jax.Array, "B S K H"], Float[jax.Array, "B S K H"]]:
    """dk and dv [B, S, K, H]; `ranges` [B, S / block_k, 4] by key, the rest as for dq."""
    batch, length, heads, head_dim = q.shape
    size, kv_heads = k.shape[1:3]
    group, tiling = heads // kv_heads, plan.key_gradient
    queries = pl.BlockSpec((None, length, group, head_dim), lambda j, b, m: (b, 0, m, 0))
    keys = pl.BlockSpec((None, tiling.block_k, None, head_dim), lambda j, b, m: (b, j, m, 0))
    row = pl.BlockSpec((None, length), lambda j, b, m: (b, 0))
    head_rows = pl.BlockSpec((None, group, length), lambda j, b, m: (b, m, 0))
    return pl.pallas_call(
        functools.partial(_key_kernel, tiling=tiling),
        grid=(size // tiling.block_k, batch, kv_heads),
        in_specs=[
            *(queries, keys, keys, row, row, head_rows, queries, head_rows),
            pl.BlockSpec((None, None, 4), lambda j, b, m: (b, j, 0)),
        ],
        out_specs=[keys, keys],
        out_shape=[
            jax.ShapeDtypeStruct(k.shape, k.dtype),
            jax.ShapeDtypeStruct(v.shape, v.dtype),
        ],
        compiler_params=tiling.compiler_params(),
        interpret=plan.interpret,
        name="interval_attention_gpu_key_gradient",
    )(q, k, v, start, end, lse, d_out, delta, ranges)


def _key_kernel(*refs, tiling: Tiling):
    q_ref, k_ref, v_ref, start_ref, end_ref, lse_ref, d_out_ref, delta_ref, ranges, dk, dv = refs
    k, v = k_ref[...], v_ref[...]
    first_key = pl.program_id(0) * tiling.block_k

    def of_head(head, carry):
        # Tiles are keys by queries, so that neither product needs a transpose.
        def step(block, carry, masked: bool):
            dk_sum, dv_sum = carry
            slots = block_of(tiling.block_q, block)
            q, d_out = q_ref[slots, head, :], d_out_ref[slots, head, :]
            s = matmul(k, q, 1)
            if masked:
                s = hide(s, start_ref[slots], end_ref[slots], first_key, 0)
            shift = jnp.maximum(lse_ref[head, slots], FLOOR) * LOG2E
            p = jnp.exp2(s * LOG2E - shift[None, :])
            ds = p * (matmul(v, d_out, 1) - delta_ref[head, slots][None, :])
            dk_sum = dk_sum + matmul(ds.astype(q.dtype), q, 0)
            return dk_sum, dv_sum + matmul(p.astype(d_out.dtype), d_out, 0)

        return loop(ranges, step, carry)

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk_sum, dv_sum = lax.fori_loop(0, q_ref.shape[1], of_head, (zeros, zeros))
    dk[...] = dk_sum.astype(dk.dtype)
    dv[...] = dv_sum.astype(dv.dtype)
