"""The backward kernels: recompute the probabilities from the log-sum-exp, then the gradients.

With p the probabilities, o the output and l the log-sum-exp of a query,

    ds = p (dp - delta)      dp = do . v      delta = do . o - dl
    dq = scale ds k          dk = scale ds^T q          dv = p^T do

(FlashAttention, arXiv:2205.14135, appendix B, with dl, since prefix and interval are merged by l).
One kernel loops over the keys of a block of queries and writes dq, another over the queries of a
block of keys and writes dk and dv. Neither writes partial sums.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float, Int

from glm_jax.attention.intervals import FLOOR, Steps
from glm_jax.attention.tpu.tiles import (
    Plan,
    QueryRows,
    by_key,
    by_query,
    compiler_params,
    cost,
    isolate_head,
    matmul,
    run_kind,
    scaled,
    scores,
    specs,
    tile_mask,
)


def score_shift(
    out: Float[jax.Array, "B T NH"],
    d_out: Float[jax.Array, "B T NH"],
    d_lse: Float[jax.Array, "B N 1 T"],
    num_heads: int,
) -> Float[jax.Array, "B N 1 T"]:
    """delta, float32 [B, N, 1, T], of out and d_out [B, T, N H] and d_lse [B, N, 1, T].

    The columns of a head are summed by a matrix product with ones. For a reduction over
    [B, T, N, H] XLA would copy the float32 product into another layout.
    """
    columns = jax.lax.broadcasted_iota(jnp.int32, (out.shape[-1], num_heads), 0)
    heads = jax.lax.broadcasted_iota(jnp.int32, columns.shape, 1)
    of_head = (columns // (out.shape[-1] // num_heads) == heads).astype(jnp.float32)
    products = out.astype(jnp.float32) * d_out.astype(jnp.float32)
    sums = jnp.matmul(products, of_head, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(sums, 1, 2)[:, :, None] - d_lse


def query_gradient(
    q: Float[jax.Array, "B T NH"],
    k: Float[jax.Array, "B S KH"],
    v: Float[jax.Array, "B S KH"],
    lse: Float[jax.Array, "B N 1 T"],
    d_out: Float[jax.Array, "B T NH"],
    delta: Float[jax.Array, "B N 1 T"],
    rows: QueryRows,
    seeds: Int[jax.Array, " two_B_N"],
    steps: Steps,
    plan: Plan,
) -> Float[jax.Array, "B T NH"]:
    """dq [B, T, N H]; `delta` is that of `score_shift`, the rest as in `forward`."""
    locate = by_query(plan, steps.size)
    blocks = specs(plan, locate, keys_outer=False)
    block = (plan.block_q, plan.width)
    return pl.pallas_call(
        functools.partial(_query_kernel, locate=locate, plan=plan),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(q.shape[0], plan.num_heads // plan.pack, steps.longest),
            in_specs=[
                *(
                    blocks.queries,
                    blocks.keys,
                    blocks.keys,
                    blocks.head_row,
                    blocks.queries,
                    blocks.head_row,
                ),
                *(blocks.row, blocks.row, blocks.shared_row),
            ],
            out_specs=blocks.queries,
            scratch_shapes=[pltpu.VMEM(block, q.dtype), pltpu.VMEM(block, jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=compiler_params(parallel=2, sequential=1),
        cost_estimate=cost(q, k, plan, products=3, arrays=3),
        interpret=plan.interpret,
        name="interval_attention_query_gradient",
    )(steps.packed, seeds, q, k, v, lse, d_out, delta, *rows)


def _query_kernel(packed, seeds, *refs, locate, plan: Plan):
    q, k, v, lse, d_out, delta, start, end, offsets, dq, q_scaled, summed = refs
    at = locate(*map(pl.program_id, range(3)), packed)
    first_key = at.step.inner * plan.block_k

    @pl.when(at.step.is_first)
    def _():
        q_scaled[...] = scaled(q[...], plan.scale)
        summed[...] = jnp.zeros_like(summed)

    def tile(masked: bool) -> None:
        bounds = (start[...], end[...]) if masked else None
        for packed_head in range(plan.pack):
            k_head, v_head = (
                isolate_head(k[...], packed_head, plan),
                isolate_head(v[...], packed_head, plan),
            )
            s = scores(k_head, q_scaled[...], bounds, first_key)
            keep = None
            if plan.dropout_rate:
                keep = tile_mask(seeds, at, packed_head, offsets[...], first_key, plan)
            _, ds = _tile_gradient(
                s, v_head, d_out[...], lse[packed_head], delta[packed_head], keep, plan
            )
            summed[...] += matmul(ds.astype(k.dtype), k_head, 0, 0)

    run_kind(at.step, tile)

    @pl.when(at.step.is_last)
    def _():
        dq[...] = (summed[...] * plan.scale).astype(dq.dtype)


def key_gradient(
    q: Float[jax.Array, "B T NH"],
    k: Float[jax.Array, "B S KH"],
    v: Float[jax.Array, "B S KH"],
    lse: Float[jax.Array, "B N 1 T"],
    d_out: Float[jax.Array, "B T NH"],
    delta: Float[jax.Array, "B N 1 T"],
    rows: QueryRows,
    seeds: Int[jax.Array, " two_B_N"],
    steps: Steps,
    plan: Plan,
) -> tuple[Float[jax.Array, "B S KH"], Float[jax.Array, "B S KH"]]:
    """dk and dv [B, S, K H]; `steps` by key, `delta` that of `score_shift`."""
    locate = by_key(plan, steps.size)
    blocks = specs(plan, locate, keys_outer=True)
    block = pltpu.VMEM((plan.block_k, plan.width), jnp.float32)
    return pl.pallas_call(
        functools.partial(_key_kernel, locate=locate, plan=plan),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(q.shape[0], plan.num_kv_heads // plan.pack, steps.longest, plan.group),
            in_specs=[
                *(
                    blocks.queries,
                    blocks.keys,
                    blocks.keys,
                    blocks.head_row,
                    blocks.queries,
                    blocks.head_row,
                ),
                *(blocks.row, blocks.row, blocks.shared_row),
            ],
            out_specs=[blocks.keys, blocks.keys],
            scratch_shapes=[block, block],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(k.shape, k.dtype),
            jax.ShapeDtypeStruct(v.shape, v.dtype),
        ],
        compiler_params=compiler_params(parallel=2, sequential=2),
        cost_estimate=cost(q, k, plan, products=4, arrays=4),
        interpret=plan.interpret,
        name="interval_attention_key_gradient",
    )(steps.packed, seeds, q, k, v, lse, d_out, delta, *rows)


def _key_kernel(packed, seeds, *refs, locate, plan: Plan):
    q, k, v, lse, d_out, delta, start, end, offsets, dk, dv, dk_sum, dv_sum = refs
    at = locate(*map(pl.program_id, range(4)), packed)
    first_key = at.step.outer * plan.block_k
    group_head = pl.program_id(3)

    @pl.when(at.step.is_first & (group_head == 0))
    def _():
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    def tile(masked: bool) -> None:
        bounds = (start[...], end[...]) if masked else None
        q_scaled = scaled(q[...], plan.scale)
        for packed_head in range(plan.pack):
            q_head, d_head = (
                isolate_head(q_scaled, packed_head, plan),
                isolate_head(d_out[...], packed_head, plan),
            )
            s = scores(k[...], q_head, bounds, first_key)
            keep = None
            if plan.dropout_rate:
                keep = tile_mask(seeds, at, packed_head, offsets[...], first_key, plan)
            p, ds = _tile_gradient(
                s, v[...], d_head, lse[packed_head], delta[packed_head], keep, plan
            )
            dv_sum[...] += matmul(p.astype(d_out.dtype), d_head, 1, 0)
            dk_sum[...] += matmul(ds.astype(q.dtype), q_head, 1, 0)

    run_kind(at.step, tile)

    @pl.when(at.step.is_last & (group_head == plan.group - 1))
    def _():
        dk[...] = dk_sum[...].astype(dk.dtype)
        dv[...] = (dv_sum[...] / (1.0 - plan.dropout_rate)).astype(dv.dtype)


def _tile_gradient(s, v, d_out, lse, delta, keep, plan: Plan):
    """The probabilities after dropout and the gradient of the scores, float32 [bk, bq].

    A query without keys has the log-sum-exp HIDDEN; raised to FLOOR its probabilities are 0.
    """
    p = jnp.exp(s - jnp.maximum(lse, FLOOR))
    dp = matmul(v, d_out, 1, 1)
    if keep is None:
        return p, p * (dp - delta)
    dp = jnp.where(keep, dp / (1.0 - plan.dropout_rate), 0.0)
    return jnp.where(keep, p, 0.0), p * (dp - delta)
