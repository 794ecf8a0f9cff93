"""Queries and keys with an axis of heads, in the memory layout of a TPU, without a copy.

A projection gives queries as [B, T, N H], and the attention kernel takes them so. A TPU stores the
last two axes of an array in tiles of 8 x 128 values, here 8 slots of one head. A tile of
[B, T, N, H] would hold 8 heads of one slot, so reshaping to it copies the array. The shape
[B, T / 8, N, 8, H] has an axis of heads too, and the same memory:

    N = 2, T = 16     memory of [B, T, N H]        tile of head 0, slots 0..7
                                                   tile of head 1, slots 0..7
                                                   tile of head 0, slots 8..15
                                                   tile of head 1, slots 8..15
"""

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from glm_jax.attention.platform import target_platform
from glm_jax.errors import say_once

# Rows per tile.
SUBLANES = 8


def is_held_in_tiles(x: Shaped[jax.Array, "B T N H"]) -> bool:
    """Whether to compute with x [B, T, N, H] in tile order: 16 bits per value, and 8 divides T.

    If 8 does not divide T, a TPU copies queries and keys, which is logged once there.
    """
    if x.dtype.itemsize != 2:
        return False
    length = x.shape[1]
    if length % SUBLANES and length > SUBLANES and target_platform() == "tpu":
        say_once(
            "tiles",
            f"rows of {length} slots are not a multiple of {SUBLANES}: queries and keys are copied "
            "into the order of a TPU's tiles in every layer",
        )
    return length % SUBLANES == 0


def in_tiles(x: Shaped[jax.Array, "B T N H"]) -> Shaped[jax.Array, "B tiles N 8 H"]:
    """[B, T, N, H] -> [B, T / 8, N, 8, H]."""
    batch, length, heads, size = x.shape
    return jnp.swapaxes(x.reshape(batch, length // SUBLANES, SUBLANES, heads, size), 2, 3)


def from_tiles(x: Shaped[jax.Array, "B tiles N 8 H"]) -> Shaped[jax.Array, "B T N H"]:
    """The inverse of `in_tiles`."""
    batch, tiles, heads, rows, size = x.shape
    return jnp.swapaxes(x, 2, 3).reshape(batch, tiles * rows, heads, size)
