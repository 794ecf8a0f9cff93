"""Cross entropy over chunks of places, so that the logits of a batch are never there at once.

Each chunk's logits are computed forward, thrown away, and computed again backward: a fourth matrix
product for the memory of all but one chunk (a single chunk keeps them). Every device takes chunks
of its own rows and places:

    T = 8 split over 2 devices of "sequence", 2 chunks      places of chunk 1   0 1 . . 4 5 . .
                                                                      chunk 2   . . 2 3 . . 6 7
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from glm_jax.losses.by_objective import cross_entropy
from glm_jax.sharding.mesh import BATCH_AXES, constrain


def chunked_losses(
    logits: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    targets: jax.Array,
    scale: jax.Array,
    *,
    row_groups: int = 1,
    place_groups: int = 1,
    chunk: int = 1024,
) -> tuple[jax.Array, jax.Array]:
    """sum(scale * cross entropy), and the cross entropy at each place.

    Args:
      logits: [..., D] -> [..., V]; may hold parameters, which get their gradient, summed over the
        chunks in the parameters' own dtype.
      hidden: [B, T, D].
      targets: [B, T] int32.
      scale: [B, T] float32.
      row_groups, place_groups: into how many parts the mesh splits rows and places.
      chunk: places of one device whose logits are there at once, at most.

    Returns:
      The sum, and [B, T] float32 losses. Only the sum has a gradient.
    """
    batch, length = targets.shape
    local = length // place_groups
    size = min(max(chunk * row_groups // batch, 1), local)
    count = -(-local // size)
    # Equal chunks need the least padding: 13 places by at most 8 are 7 and 7, not 8 and 8.
    size = -(-local // count)

    def split(leaf: jax.Array) -> jax.Array:
        rest = leaf.shape[2:]
        groups = leaf.reshape(batch, place_groups, local, *rest)
        padding = [(0, 0)] * 2 + [(0, count * size - local)] + [(0, 0)] * len(rest)
        parts = jnp.pad(groups, padding).reshape(batch, place_groups, count, size, *rest)
        axes = (None, BATCH_AXES, "sequence", *[None] * (1 + len(rest)))
        return constrain(jnp.moveaxis(parts, 2, 0), *axes)

    def of_chunk(hidden: jax.Array, targets: jax.Array, scale: jax.Array) -> tuple:
        scores = constrain(logits(hidden), BATCH_AXES, "sequence", None, "tensor")
        losses = cross_entropy(scores, targets)
        return jnp.sum(losses * scale), jax.lax.stop_gradient(losses)

    if count > 1:
        of_chunk = jax.checkpoint(of_chunk)

    def body(total: jax.Array, part: tuple) -> tuple[jax.Array, jax.Array]:
        loss, losses = of_chunk(*part)
        return total + loss, losses

    start = jnp.float32(0)
    total, losses = jax.lax.scan(body, start, (split(hidden), split(targets), split(scale)))
    losses = jnp.moveaxis(losses, 0, 2).reshape(batch, place_groups, count * size)
    return total, losses[..., :local].reshape(batch, length)
