"""Seeds of jax's keys, one rule for parameters, dropout and generation; and initial values.

A seed has 64 bits. jax uses the lowest 32 bits of an int and silently drops the others, so the high
word is folded in here. Seeds below 2^32 have the keys that jax gives them.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.checks import LARGEST_SEED, whole_number


def key_of(seed: int) -> jax.Array:
    """The key of a seed in 0..2^64 - 1; any other is a `UserError`."""
    seed = whole_number("seed", seed, 0, LARGEST_SEED)
    high, low = seed >> 32, seed & 0xFFFFFFFF
    key = jax.random.key(np.uint32(low))
    return jax.random.fold_in(key, np.uint32(high)) if high else key


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of the child called `name`."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def normal(key: jax.Array, shape: Sequence[int], stddev: float, dtype: str) -> jax.Array:
    """Draws N(0, stddev) in float32 and stores it in a dtype."""
    return (stddev * jax.random.normal(key, tuple(shape), jnp.float32)).astype(dtype)
