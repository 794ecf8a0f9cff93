"""Cross entropy over chunks of slots, so that a batch's logits are never in memory all at once.

The logits of a chunk are computed in the forward pass, discarded, and recomputed in the backward
pass. A fourth matrix product thus saves the memory of all chunks but one (a single chunk keeps its
logits). Every device takes chunks of its own rows and slots:

    T = 8 sharded over 2 devices of "sequence", 2 chunks     slots of chunk 1   0 1 . . 4 5 . .
                                                                      chunk 2   . . 2 3 . . 6 7
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.losses.by_objective import cross_entropy
from glm_jax.sharding.mesh import BATCH_AXES, constrain


def chunked_losses(
    logits: Callable[[jax.Array], jax.Array],
    hidden: Float[Array, "B T features"],
    targets: Int[Array, "B T"],
    scale: Float[Array, "B T"],
    *,
    row_groups: int = 1,
    slot_groups: int = 1,
    chunk: int = 1024,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, "B T"]]:
    """sum(scale * cross entropy), and the cross entropy at each slot.

    Args:
      logits: [..., D] -> [..., V]; may close over parameters. Their gradient is summed over the
        chunks in the parameters' own dtype.
      hidden: [B, T, D].
      targets: [B, T] int32.
      scale: [B, T] float32.
      row_groups, slot_groups: number of shards of the rows, and of the slots of a row.
      chunk: maximum number of slots per device whose logits are in memory at once.

    Returns:
      The sum, and [B, T] float32 losses. Only the sum has a gradient.
    """
    batch, length = targets.shape
    local = length // slot_groups
    size = min(max(chunk * row_groups // batch, 1), local)
    count = -(-local // size)
    # Equal chunks need the least padding: 13 slots by at most 8 are 7 and 7, not 8 and 8.
    size = -(-local // count)

    def split(leaf: Array) -> jax.Array:
        rest = leaf.shape[2:]
        groups = leaf.reshape(batch, slot_groups, local, *rest)
        padding = [(0, 0)] * 2 + [(0, count * size - local)] + [(0, 0)] * len(rest)
        chunks = jnp.pad(groups, padding).reshape(batch, slot_groups, count, size, *rest)
        axes = (None, BATCH_AXES, "sequence", *[None] * (1 + len(rest)))
        return constrain(jnp.moveaxis(chunks, 2, 0), *axes)

    def of_chunk(hidden: jax.Array, targets: jax.Array, scale: jax.Array) -> tuple:
        scores = constrain(logits(hidden), BATCH_AXES, "sequence", None, "tensor")
        losses = cross_entropy(scores, targets)
        return jnp.sum(losses * scale), jax.lax.stop_gradient(losses)

    if count > 1:
        of_chunk = jax.checkpoint(of_chunk)

    def body(total: jax.Array, chunk: tuple) -> tuple[jax.Array, jax.Array]:
        loss, losses = of_chunk(*chunk)
        return total + loss, losses

    start = jnp.float32(0)
    total, losses = jax.lax.scan(body, start, (split(hidden), split(targets), split(scale)))
    losses = jnp.moveaxis(losses, 0, 2).reshape(batch, slot_groups, count * size)
    return total, losses[..., :local].reshape(batch, length)
