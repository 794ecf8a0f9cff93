"""The forward kernel: softmax over the keys of an interval, block by block.

Each block of queries meets one block of keys after the other. Scratch memory holds the largest
score so far, the sum of exponentials and the weighted sum of values, which are rescaled at a larger
score (FlashAttention, arXiv:2205.14135, algorithm 1).
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float, Int

from glm_jax.attention.intervals import FLOOR, HIDDEN, Steps
from glm_jax.attention.tpu.tiles import (
    Plan,
    QueryRows,
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


def forward(
    q: Float[jax.Array, "B T NH"],
    k: Float[jax.Array, "B S KH"],
    v: Float[jax.Array, "B S KH"],
    rows: QueryRows,
    seeds: Int[jax.Array, " two_B_N"],
    steps: Steps,
    plan: Plan,
) -> tuple[Float[jax.Array, "B T NH"], Float[jax.Array, "B N 1 T"]]:
    """Runs the kernel.

    Args:
      q: [B, T, N H]; T is a multiple of block_q.
      k, v: [B, S, K H]; S is a multiple of block_k.
      rows: int32 start and end [B, 1, T], and offsets [1, 1, T] of `tiles.tile_mask`.
      seeds: [2 * B * N] int32 of `tiles.tile_mask`.
      steps: by query.

    Returns:
      [B, T, N H] in the dtype of v, and the log-sum-exp of the scores, float32 [B, N, 1, T].
    """
    batch, length = q.shape[:2]
    locate = by_query(plan, steps.size)
    blocks = specs(plan, locate, keys_outer=False)
    row = pltpu.VMEM((plan.pack, 1, plan.block_q), jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, locate=locate, plan=plan),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, plan.num_heads // plan.pack, steps.longest),
            in_specs=[
                blocks.queries,
                blocks.keys,
                blocks.keys,
                blocks.row,
                blocks.row,
                blocks.shared_row,
            ],
            out_specs=[blocks.queries, blocks.head_row],
            scratch_shapes=[
                pltpu.VMEM((plan.pack, plan.block_q, plan.width), q.dtype),
                row,
                row,
                pltpu.VMEM((plan.pack, plan.head_dim, plan.block_q), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, v.dtype),
            jax.ShapeDtypeStruct((batch, plan.num_heads, 1, length), jnp.float32),
        ],
        compiler_params=compiler_params(parallel=2, sequential=1),
        cost_estimate=cost(q, k, plan, products=2, arrays=2),
        interpret=plan.interpret,
        name="interval_attention_forward",
    )(steps.packed, seeds, q, k, v, *rows)


def _kernel(packed, seeds, *refs, locate, plan: Plan):
    q, k, v, start, end, offsets, out, lse, q_scaled, largest, total, summed = refs
    at = locate(*map(pl.program_id, range(3)), packed)
    first_key = at.step.inner * plan.block_k

    @pl.when(at.step.is_first)
    def _():
        for packed_head in range(plan.pack):
            q_scaled[packed_head] = isolate_head(scaled(q[...], plan.scale), packed_head, plan)
        largest[...] = jnp.full_like(largest, FLOOR)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    def tile(masked: bool) -> None:
        bounds = (start[...], end[...]) if masked else None
        for packed_head in range(plan.pack):
            s = scores(k[...], q_scaled[packed_head], bounds, first_key)
            before = largest[packed_head]
            now = jnp.maximum(before, jnp.max(s, axis=0, keepdims=True))
            weights = jnp.exp(s - now)
            shrink = jnp.exp(before - now)
            largest[packed_head] = now
            total[packed_head] = shrink * total[packed_head] + jnp.sum(
                weights, axis=0, keepdims=True
            )
            if plan.dropout_rate:
                keep = tile_mask(seeds, at, packed_head, offsets[...], first_key, plan)
                weights = jnp.where(keep, weights, 0.0)
            columns = matmul(v[...], weights.astype(v.dtype), 0, 0)
            of_head = columns[packed_head * plan.head_dim : (packed_head + 1) * plan.head_dim]
            summed[packed_head] = shrink * summed[packed_head] + of_head

    run_kind(at.step, tile)

    @pl.when(at.step.is_last)
    def _():
        sees = total[...] > 0.0
        share = jnp.where(sees, total[...], 1.0)
        lse[...] = jnp.where(sees, largest[...] + jnp.log(share), HIDDEN)
        y = summed[...] / (share * (1.0 - plan.dropout_rate))
        out[...] = y.reshape(plan.width, plan.block_q).T.astype(out.dtype)
