"""Heads in the order in which a TPU holds them, so that no use of them copies them over.

Products with matrices give queries with heads side by side, [B, T, N H], and the attention kernel
takes them so. A TPU holds the last two axes in tiles of 8 rows by 128 numbers, whose rows are then
8 places of one head. As [B, T, N, H] a tile would have 8 heads of one place: the same numbers
elsewhere. [B, T / 8, N, 8, H] names each head's numbers by an axis of their own, and moves none:

    N = 2, T = 16     memory of [B, T, N H]        tile of head 0, places 0..7
                                                   tile of head 1, places 0..7
                                                   tile of head 0, places 8..15
                                                   tile of head 1, places 8..15
"""

import jax
import jax.numpy as jnp

from glm_jax.attention.platform import target_platform
from glm_jax.errors import say_once

# Rows of a tile.
SUBLANES = 8


def is_held_in_tiles(x: jax.Array) -> bool:
    """Whether x [B, T, N, H] should be worked on in tile order: 16 bits, as on accelerators.

    Of rows that tiles do not divide it is said once on a TPU, where heads are then copied over.
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


def in_tiles(x: jax.Array) -> jax.Array:
    """[B, T, N, H] -> [B, T / 8, N, 8, H]."""
    batch, length, heads, size = x.shape
    return jnp.swapaxes(x.reshape(batch, length // SUBLANES, SUBLANES, heads, size), 2, 3)


def from_tiles(x: jax.Array) -> jax.Array:
    """The inverse of `in_tiles`."""
    batch, tiles, heads, rows, size = x.shape
    return jnp.swapaxes(x, 2, 3).reshape(batch, tiles * rows, heads, size)
