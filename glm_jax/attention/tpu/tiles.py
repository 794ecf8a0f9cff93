"""One tile of scores, as the forward and the backward kernels compute it.

A tile is turned, keys by queries, so that what there is once a query (bounds, largest score, sums)
is a row of lanes, and reductions over the keys go along sublanes:

                    queries ->
          keys    s(0,0) s(0,1) ..  [bk, bq]        start, end   [1, bq]
           |      s(1,0) s(1,1) ..                  largest      [1, bq]    max over the keys
           v                                        total        [1, bq]    sum over the keys
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from glm_jax.attention.call import HIDDEN
from glm_jax.attention.dropout import keeps
from glm_jax.attention.tpu.blocks import PARTIAL, WHOLE, Step
from glm_jax.attention.tpu.layout import Place, Plan


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
