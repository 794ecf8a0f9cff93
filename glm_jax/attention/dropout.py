"""Dropout whose mask is a pure function of its key, on every mesh and every backend.

A training step draws a bit for every pair of tokens in every layer. jax's own generator spends a
hundred operations on each, a third of a step on CPU; here each row of the mask gets a start and a
stride from it, and the places of the row are counted and scrambled in eight.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes entries with probability `rate` and scales the others; no key: returns x."""
    if key is None or rate == 0.0:
        return x
    keep = keep_mask(key, rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws which entries stay: bool of `shape` (two axes at least), true with 1 - rate."""
    start, stride = row_seeds(key, (*shape[:-2], 1, 1))
    place = jax.lax.iota(jnp.uint32, math.prod(shape[-2:])).reshape(shape[-2:])
    return jnp.broadcast_to(keeps(start + place * stride, rate), shape)


class MaskRows(NamedTuple):
    """What makes the mask of probabilities [B, N, T, S] anywhere, a part of it at a time.

    Attributes:
      seeds: [2, B, N] uint32, `row_seeds`.
      places: [T] uint32, the index of each query times S; entry (b, n, t, s) is counted
        seeds[0, b, n] + (places[t] + s) * seeds[1, b, n].
    """

    seeds: jax.Array
    places: jax.Array


def mask_rows(key: jax.Array, shape: tuple[int, int, int, int]) -> MaskRows:
    """The rows of `keep_mask(key, rate, shape)`, shape (B, N, T, S)."""
    places = jnp.arange(shape[2], dtype=jnp.uint32) * jnp.uint32(shape[3])
    return MaskRows(row_seeds(key, shape[:2]), places)


def row_seeds(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[2, *shape] uint32: where each row of the mask starts to count, and its stride.

    Strides differ, so that no two rows run through the same numbers.
    """
    start, stride = jax.random.bits(key, (2, *shape), jnp.uint32)
    return jnp.stack([start, stride | 1])


def keeps(count: jax.Array, rate: float) -> jax.Array:
    """Whether the entry that was counted uint32 `count` (start + place * stride) stays.

    The scrambler is a 32-bit mixer of little bias (C. Wellons, "Prospecting for hash functions",
    2018).
    """
    if rate >= 1.0:
        return jnp.zeros(count.shape, jnp.bool_)
    x = (count ^ (count >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return (x ^ (x >> 16)) >= jnp.uint32(round(rate * 2**32))
