"""The range of blocks of keys for each block of queries on a GPU, and vice versa.

A program computes one outer block, that of the output, in loops over inner blocks. Four indices
bound the loops: the first needed block, the first WHOLE block, which needs no mask, the end of the
WHOLE blocks, and the end of the needed blocks. Blocks of two; two segments of four slots, the first
with a prefix length of 2, the second causal (`glm_jax.attention.intervals` has the picture):

    kinds           by query         by key
    W . . .         0 0 1 1          0 0 2 2        masked    first .. whole_from
    W P . .         0 0 1 2          1 2 2 2        no mask   whole_from .. whole_to
    . . P .         2 3 3 3          2 3 4 4        masked    whole_to .. last
    . . W P         2 2 3 4          3 4 4 4
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int

from glm_jax.attention.intervals import EMPTY, WHOLE


def block_ranges(kinds: Int[jax.Array, "B outer inner"]) -> Int[jax.Array, "B outer 4"]:
    """first, whole_from, whole_to and last, for every outer block.

    If WHOLE blocks are not contiguous, those after the first run are masked too, with the same
    result. An outer block that needs no inner one has first = last.

    Args:
      kinds: [B, outer, inner] of `block_kinds`, or with the last two axes swapped.

    Returns:
      [B, outer, 4] int32, indices of inner blocks; first <= whole_from <= whole_to <= last.
    """
    inner = kinds.shape[-1]
    index = jnp.arange(inner, dtype=jnp.int32)
    needed, whole = kinds > EMPTY, kinds == WHOLE
    first = jnp.min(jnp.where(needed, index, inner), axis=-1)
    last = jnp.max(jnp.where(needed, index + 1, 0), axis=-1)
    first = jnp.minimum(first, last)
    whole_from = jnp.min(jnp.where(whole, index, last[..., None]), axis=-1)
    behind = ~whole & (index >= whole_from[..., None])
    whole_to = jnp.min(jnp.where(behind, index, last[..., None]), axis=-1)
    return jnp.stack([first, whole_from, whole_to, last], axis=-1).astype(jnp.int32)
