"""What the attention kernels for TPUs share: the fixed numbers of a call, its blocks, and tiles.

Arrays lie in memory as a projection writes them, [B, T, N H], and a block of head n is the columns
[n H, (n + 1) H) of block_q places, so nothing is transposed on the way in or out:

               n = 0     n = 1            array            block
    block 0   q q q q | q q q q           [B, T, N H]      [bq, H]     q, out, their gradients
              q q q q | q q q q           [B, S, K H]      [bk, H]     k, v, their gradients
    block 1   q q q q | q q q q           [B, 1, T]        [1, bq]     bounds
              q q q q | q q q q           [B, N, 1, T]     [1, bq]     log-sum-exp

Where heads are narrower than the 128 lanes of a TPU's registers and each has keys of its own, a
block holds as many as fit side by side (`Plan.pack`); a kernel goes through them one by one:

    [bq, 2 H]    a a a a b b b b        `of_part`    a a a a 0 0 0 0    0 0 0 0 b b b b

A grid goes through the rows b, the heads, and the steps of `glm_jax.attention.intervals`.

A tile of scores is turned, keys by queries, so that what there is once a query (bounds, largest
score, sums) is a row of lanes, and reductions over the keys go along sublanes:

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

from glm_jax.attention.dropout import keeps
from glm_jax.attention.intervals import HIDDEN, PARTIAL, WHOLE, Step, unpack


@dataclasses.dataclass(frozen=True)
class Plan:
    """The fixed numbers of a call.

    Attributes:
      num_heads, num_kv_heads: N and K.
      width: columns of a block, a multiple of 128: H, or `pack` times H.
      pack: heads side by side in a block; above 1 only where N = K.
      block_q, block_k: places in a block of queries and of keys.
      num_keys: S before padding; the places of a dropout mask are counted with it.
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
        """Query heads a key head."""
        return self.num_heads // self.num_kv_heads

    @property
    def head_dim(self) -> int:
        """H, columns of a head."""
        return self.width // self.pack


class Place(NamedTuple):
    """Where a grid step stands: row, block of query heads and of key heads, step of its list."""

    row: jax.Array
    head: jax.Array
    kv_head: jax.Array
    step: Step


def by_query(plan: Plan, size: int) -> Callable[..., Place]:
    """Grid (B, N / pack, steps): a block of queries stays while the keys go by."""

    def place(b, n, p, packed, _seeds=None) -> Place:
        return Place(b, n, n // plan.group, unpack(packed[b * size + p]))

    return place


def by_key(plan: Plan, size: int) -> Callable[..., Place]:
    """Grid (B, K / pack, steps, N / K): keys stay while the queries of all their heads go by."""

    def place(b, m, p, g, packed, _seeds=None) -> Place:
        return Place(b, m * plan.group + g, m, unpack(packed[b * size + p]))

    return place


class Specs(NamedTuple):
    """The blocks that a kernel sees of each kind of array."""

    queries: pl.BlockSpec
    keys: pl.BlockSpec
    row: pl.BlockSpec
    shared_row: pl.BlockSpec
    head_row: pl.BlockSpec


def specs(plan: Plan, place: Callable[..., Place], *, keys_outer: bool) -> Specs:
    """Blocks of [B, T, N H], [B, S, K H], [B, 1, T], [1, 1, T] and [B, N, 1, T]."""
    bq, bk, width = plan.block_q, plan.block_k, plan.width

    def queries_at(step: Step) -> jax.Array:
        return step.inner if keys_outer else step.outer

    def keys_at(step: Step) -> jax.Array:
        return step.outer if keys_outer else step.inner

    def spec(shape: tuple, index: Callable[[Place], tuple]) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda *grid: index(place(*grid)))

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
    """What the compiler is told; it cannot know the intervals, so half of all pairs are counted.

    Args:
      q, k: [B, T, N H] and [B, S, K H].
      products: matrix products of a tile.
      arrays: arrays of q's size that are read or written once.
    """
    pairs = q.shape[0] * plan.num_heads * q.shape[1] * k.shape[1] // 2
    fetched = 2 * pairs // plan.block_q * plan.head_dim
    return pl.CostEstimate(
        flops=2 * products * pairs * plan.width,
        bytes_accessed=(arrays * q.size + fetched) * q.dtype.itemsize,
        transcendentals=pairs,
    )


def compiler_params(*, parallel: int, sequential: int) -> pltpu.CompilerParams:
    """Grid axes: first those that two cores may share, then those that go in order."""
    semantics = [pltpu.PARALLEL] * parallel + [pltpu.ARBITRARY] * sequential
    return pltpu.CompilerParams(dimension_semantics=semantics)


def matmul(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Product over one axis of each, summed in float32."""
    dimensions = (((axis_a,), (axis_b,)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def scaled(q: jax.Array, scale: float) -> jax.Array:
    """q times scale, rounded to the dtype of q as every backend rounds it."""
    return (q.astype(jnp.float32) * scale).astype(q.dtype)


def scores(k: jax.Array, q: jax.Array, bounds: tuple | None, first_key: jax.Array) -> jax.Array:
    """[bk, bq] float32; `bounds` (start, end) [1, bq] hide keys, None: every query sees all."""
    s = matmul(k, q, 1, 1)
    if bounds is None:
        return s
    key = lax.broadcasted_iota(jnp.int32, s.shape, 0)
    start, end = bounds
    return jnp.where((start - first_key <= key) & (key < end - first_key), s, HIDDEN)


def kept(
    seeds, at: Place, part: int, places: jax.Array, first_key: jax.Array, plan: Plan
) -> jax.Array:
    """Which probabilities of a tile dropout keeps, bool [bk, bq]: the mask of `dropout.keep_mask`.

    Args:
      seeds: [2 * B * N] int32 that hold uint32, starts and then strides.
      at, part: row, block of heads and the head in it.
      places: [1, bq] int32, the query's index times S: where its first key lies in the mask.
      first_key: index of the tile's first key.
    """
    head = at.row * plan.num_heads + at.head * plan.pack + part
    start, stride = seeds[head], seeds[seeds.shape[0] // 2 + head]
    key = lax.broadcasted_iota(jnp.int32, (plan.block_k, plan.block_q), 0)
    count = (start + (places + first_key) * stride) + key * stride
    return keeps(lax.bitcast_convert_type(count, jnp.uint32), plan.dropout_rate)


def of_part(x: jax.Array, part: int, plan: Plan) -> jax.Array:
    """The columns of one of a block's heads, [.., width], 0 in those of the others.

    A product over the columns then is that head's alone; the matrix unit pads what is narrower than
    128 with zeros all the same.
    """
    if plan.pack == 1:
        return x
    column = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.where(column // plan.head_dim == part, x, jnp.zeros_like(x))


def run_kind(step: Step, tile: Callable[[bool], None]) -> None:
    """Runs tile(masked) where the step has work: with a mask only where one is needed."""
    pl.when(step.kind == WHOLE)(lambda: tile(False))
    pl.when(step.kind == PARTIAL)(lambda: tile(True))
