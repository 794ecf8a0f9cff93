"""Dropout whose mask is a pure function of its key, on every mesh and every backend.

A training step draws a bit for every pair of tokens in every layer. jax's own generator spends a
hundred operations on each, a third of a step on CPU; here each row of the mask gets a start and a
stride from it, and the places of the row are counted and scrambled in eight.
"""

import math

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes entries with probability `rate` and scales the others; no key: returns x."""
    if key is None or rate == 0.0:
        return x
    keep = keep_mask(key, rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws which entries stay: bool of `shape` (two axes at least), true with 1 - rate.

    The scrambler is a 32-bit mixer of little bias (C. Wellons, "Prospecting for hash functions",
    2018); strides differ, so that no two rows run through the same numbers.
    """
    if rate >= 1.0:
        return jnp.zeros(shape, jnp.bool_)
    start, stride = jax.random.bits(key, (2, *shape[:-2], 1, 1), jnp.uint32)
    place = jax.lax.iota(jnp.uint32, math.prod(shape[-2:])).reshape(shape[-2:])
    x = start + place * (stride | 1)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return (x ^ (x >> 16)) >= jnp.uint32(round(rate * 2**32))
