"""Dropout whose mask is a pure function of its key, on every mesh and every backend.

A training step draws a bit for every pair of tokens in every layer. JAX's generator takes a hundred
operations per bit, a third of a step's time on CPU. Here it draws only a start and a stride for
each row of the mask. The bit of an entry is a hash, of eight operations, of start + index * stride.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, UInt32


def dropout(
    x: Float[jax.Array, "*shape"], rate: float, key: jax.Array | None
) -> Float[jax.Array, "*shape"]:
    """Zeroes entries with probability `rate` and scales the others by 1 / (1 - rate); no key: x."""
    if key is None or rate == 0.0:
        return x
    keep = keep_mask(key, rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> Bool[jax.Array, "..."]:
    """Draws which entries to keep: bool of `shape` (at least two axes), true with 1 - rate."""
    start, stride = row_seeds(key, (*shape[:-2], 1, 1))
    index = jax.lax.iota(jnp.uint32, math.prod(shape[-2:])).reshape(shape[-2:])
    return jnp.broadcast_to(keeps(start + index * stride, rate), shape)


class MaskRows(NamedTuple):
    """The mask of probabilities [B, N, T, S] in compact form; any tile of it can be computed alone.

    Entry (b, n, t, s) is keeps(seeds[0, b, n] + (offsets[t] + s) * seeds[1, b, n], rate).

    Attributes:
      seeds: [2, B, N] uint32 of `row_seeds`.
      offsets: [T] uint32, the index of each query in its row, times S.
    """

    seeds: jax.Array
    offsets: jax.Array


def mask_rows(key: jax.Array, shape: tuple[int, int, int, int]) -> MaskRows:
    """The `MaskRows` of `keep_mask(key, rate, shape)`, shape (B, N, T, S)."""
    offsets = jnp.arange(shape[2], dtype=jnp.uint32) * jnp.uint32(shape[3])
    return MaskRows(row_seeds(key, shape[:2]), offsets)


def row_seeds(key: jax.Array, shape: tuple[int, ...]) -> UInt32[jax.Array, "2 ..."]:
    """[2, *shape] uint32: the start and the stride of each row of the mask.

    Strides differ, so that no row is a shifted copy of another.
    """
    start, stride = jax.random.bits(key, (2, *shape), jnp.uint32)
    return jnp.stack([start, stride | 1])


def keeps(count: UInt32[jax.Array, "*shape"], rate: float) -> Bool[jax.Array, "*shape"]:
    """Whether to keep the entries with the counters `count`, uint32, start + index * stride.

    The hash is a 32-bit mixer of low bias (C. Wellons, "Prospecting for hash functions", 2018).
    """
    if rate >= 1.0:
        return jnp.zeros(count.shape, jnp.bool_)
    x = (count ^ (count >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return (x ^ (x >> 16)) >= jnp.uint32(round(rate * 2**32))
