"""Which blocks of keys a block of queries goes through on a GPU, and the other way round.

A program computes one block of the output, and its loops need nothing but four numbers: from which
block on the other side something is seen, where the blocks begin that all see all of and that need
no mask, where those end, and where everything ends. Blocks of two, two texts of four places, the
first with a prefix of two, the second causal (`glm_jax.attention.intervals` has the picture):

    kinds           by query         by key
    W . . .         0 0 1 1          0 0 2 2        masked    first .. whole_from
    W P . .         0 0 1 2          1 2 2 2        no mask   whole_from .. whole_to
    . . P .         2 3 3 3          2 3 4 4        masked    whole_to .. last
    . . W P         2 2 3 4          3 4 4 4
"""

import jax
import jax.numpy as jnp

from glm_jax.attention.intervals import EMPTY, WHOLE


def block_ranges(kinds: jax.Array) -> jax.Array:
    """first, whole_from, whole_to and last, for every outer block.

    The whole blocks are the first run of them; where others follow, those are masked, which
    computes the same. A block that meets nothing has first = last.

    Args:
      kinds: [B, outer, inner] of `block_kinds`, or with the last two axes turned.

    Returns:
      [B, outer, 4] int32, in blocks of the inner side; first <= whole_from <= whole_to <= last.
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
