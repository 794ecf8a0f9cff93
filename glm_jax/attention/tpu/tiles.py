"""What the attention kernels for TPUs share: static sizes of a call, blocks and tiles.

Arrays have the layout in which a projection writes them, [B, T, N H]. A block of head n is the
columns [n H, (n + 1) H) of block_q slots, so nothing is transposed on the way in or out:

               n = 0     n = 1            array            block
    block 0   q q q q | q q q q           [B, T, N H]      [bq, H]     q, out, their gradients
              q q q q | q q q q           [B, S, K H]      [bk, H]     k, v, their gradients
    block 1   q q q q | q q q q           [B, 1, T]        [1, bq]     bounds
              q q q q | q q q q           [B, N, 1, T]     [1, bq]     log-sum-exp

If the head dimension is below the 128 lanes of a TPU's registers and N = K, a block holds as many
heads side by side as fit (`Plan.pack`), and the kernels compute them one after the other:

    [bq, 2 H]    a a a a b b b b        `isolate_head`    a a a a 0 0 0 0    0 0 0 0 b b b b

The axes of a kernel's grid are the rows of the batch, the blocks of heads, and the steps of
`glm_jax.attention.intervals.list_steps`.

A tile holds the scores of a block of keys and a block of queries. It is transposed, keys by
queries: values per query (bounds, largest score, sums) are rows of lanes, and reductions over the
keys go along sublanes:

                    queries ->
          keys    s(0,0) s(0,1) ..  [bk, bq]        start, end   [1, bq]
           |      s(1,0) s(1,1) ..                  largest      [1, bq]    max over the keys
           v                                        total        [1, bq]    sum over the keys
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Int

from glm_jax.attention.dropout import keeps
from glm_jax.attention.intervals import HIDDEN, PARTIAL, WHOLE, Step, unpack

# Start and end of each query's interval, and the offsets of its dropout mask.
QueryRows = tuple[Int[jax.Array, "B 1 T"], Int[jax.Array, "B 1 T"], Int[jax.Array, "1 1 T"]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static in a call.

    Attributes:
      num_heads, num_kv_heads: N and K.
      width: columns per block, a multiple of 128: H, or `pack` times H.
      pack: heads per block; above 1 only if N = K.
      block_q, block_k: slots per block of queries and of keys.
      num_keys: S before padding; the row length of the dropout mask.
      scale: factor on the scores.
      dropout_rate: share of the probabilities set to 0.
      interpret: run anywhere, slowly, for tests.
    """

    num_heads: int
    num_kv_heads: int
    width: int
    pack: int
    block_q: int
    block_k: int
    num_keys: int
    scale: float
    dropout_rate: float
    interpret: bool

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.num_heads // self.num_kv_heads

    @property
    def head_dim(self) -> int:
        """H, columns per head."""
        return self.width // self.pack


class Location(NamedTuple):
    """Indices of a grid step: row, block of query heads, block of key heads; and its `Step`."""

    row: jax.Array
    head: jax.Array
    kv_head: jax.Array
    step: Step


def by_query(plan: Plan, size: int) -> Callable[..., Location]:
    """Grid (B, N / pack, steps): one block of queries, block after block of keys."""

    def locate(b, n, p, packed, _seeds=None) -> Location:
        return Location(b, n, n // plan.group, unpack(packed[b * size + p]))

    return locate


def by_key(plan: Plan, size: int) -> Callable[..., Location]:
    """Grid (B, K / pack, steps, N / K): one block of keys, the queries of all its heads."""

    def locate(b, m, p, g, packed, _seeds=None) -> Location:
        return Location(b, m * plan.group + g, m, unpack(packed[b * size + p]))

    return locate


class Specs(NamedTuple):
    """The block specs of each kind of array."""

    queries: pl.BlockSpec
    keys: pl.BlockSpec
    row: pl.BlockSpec
    shared_row: pl.BlockSpec
    head_row: pl.BlockSpec


def specs(plan: Plan, locate: Callable[..., Location], *, keys_outer: bool) -> Specs:
    """Blocks of [B, T, N H], [B, S, K H], [B, 1, T], [1, 1, T] and [B, N, 1, T]."""
    bq, bk, width = plan.block_q, plan.block_k, plan.width

    def queries_at(step: Step) -> jax.Array:
        return step.inner if keys_outer else step.outer

    def keys_at(step: Step) -> jax.Array:
        return step.outer if keys_outer else step.inner

    def spec(shape: tuple, index: Callable[[Location], tuple]) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda *grid: index(locate(*grid)))

    return Specs(
        queries=spec((None, bq, width), lambda at: (at.row, queries_at(at.step), at.head)),
        keys=spec((None, bk, width), lambda at: (at.row, keys_at(at.step), at.kv_head)),
        row=spec((None, 1, bq), lambda at: (at.row, 0, queries_at(at.step))),
        shared_row=spec((None, 1, bq), lambda at: (0, 0, queries_at(at.step))),
        head_row=spec(
            (None, plan.pack, 1, bq), lambda at: (at.row, at.head, 0, queries_at(at.step))
        ),
    )


def cost(q: jax.Array, k: jax.Array, plan: Plan, *, products: int, arrays: int) -> pl.CostEstimate:
    """An estimate for the compiler, which cannot know the intervals: half of all pairs are counted.

    Args:
      q, k: [B, T, N H] and [B, S, K H].
      products: matrix products per tile.
      arrays: arrays of the size of q that are read or written once.
    """
    pairs = q.shape[0] * plan.num_heads * q.shape[1] * k.shape[1] // 2
    fetched = 2 * pairs // plan.block_q * plan.head_dim
    return pl.CostEstimate(
        flops=2 * products * pairs * plan.width,
        bytes_accessed=(arrays * q.size + fetched) * q.dtype.itemsize,
        transcendentals=pairs,
    )


def compiler_params(*, parallel: int, sequential: int) -> pltpu.CompilerParams:
    """Grid axes: first those that two cores may share, then those that run in order."""
    semantics = [pltpu.PARALLEL] * parallel + [pltpu.ARBITRARY] * sequential
    return pltpu.CompilerParams(dimension_semantics=semantics)


def matmul(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Product over one axis of each, summed in float32."""
    dimensions = (((axis_a,), (axis_b,)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def scaled(q: jax.Array, scale: float) -> jax.Array:
    """q times scale, rounded to the dtype of q as every backend rounds it."""
    return (q.astype(jnp.float32) * scale).astype(q.dtype)


def scores(
    k: jax.Array, q: jax.Array, bounds: tuple | None, first_key: int | jax.Array
) -> jax.Array:
    """[bk, bq] float32; outside `bounds`, start and end [1, bq], HIDDEN. None: no mask."""
    s = matmul(k, q, 1, 1)
    if bounds is None:
        return s
    key = lax.broadcasted_iota(jnp.int32, s.shape, 0)
    start, end = bounds
    return jnp.where((start - first_key <= key) & (key < end - first_key), s, HIDDEN)


def tile_mask(
    seeds,
    at: Location,
    packed_head: int,
    offsets: jax.Array,
    first_key: int | jax.Array,
    plan: Plan,
) -> jax.Array:
    """The tile of `dropout.keep_mask`, bool [bk, bq]: which probabilities dropout keeps.

    Args:
      seeds: [2 * B * N] int32 with the bits of uint32, all starts and then all strides.
      at: the row and the block of heads.
      packed_head: the head within the block.
      offsets: [1, bq] int32, the offset of a query's first key in its mask, `MaskRows.offsets`.
      first_key: index of the tile's first key.
    """
    head = at.row * plan.num_heads + at.head * plan.pack + packed_head
    start, stride = seeds[head], seeds[seeds.shape[0] // 2 + head]
    key = lax.broadcasted_iota(jnp.int32, (plan.block_k, plan.block_q), 0)
    count = (start + (offsets + first_key) * stride) + key * stride
    return keeps(lax.bitcast_convert_type(count, jnp.uint32), plan.dropout_rate)


def isolate_head(x: jax.Array, packed_head: int, plan: Plan) -> jax.Array:
    """x [.., width] with 0 in the columns of the block's other heads.

    A product over all columns is then that of one head. It costs no more than a narrow one: the
    matrix unit pads columns to 128 anyway.
    """
    if plan.pack == 1:
        return x
    column = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.where(column // plan.head_dim == packed_head, x, jnp.zeros_like(x))


def run_kind(step: Step, tile: Callable[[bool], None]) -> None:
    """Calls tile(masked): masked if the step is PARTIAL, not if WHOLE; not at all if EMPTY."""
    pl.when(step.kind == WHOLE)(lambda: tile(False))
    pl.when(step.kind == PARTIAL)(lambda: tile(True))
