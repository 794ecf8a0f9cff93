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
from jax.sharding import Mesh
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.batch import Batch
from glm_jax.config.training import TrainConfig
from glm_jax.losses.by_objective import cross_entropy
from glm_jax.sharding.mesh import BATCH_AXES, constrain, row_groups, slot_groups


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
    chunks = _Chunks(targets.shape, row_groups, slot_groups, chunk)

    def of_chunk(hidden: jax.Array, targets: jax.Array, scale: jax.Array) -> tuple:
        losses = cross_entropy(_scored(logits, hidden), targets)
        return jnp.sum(losses * scale), jax.lax.stop_gradient(losses)

    if chunks.count > 1:
        of_chunk = jax.checkpoint(of_chunk)

    def body(total: jax.Array, chunk: tuple) -> tuple[jax.Array, jax.Array]:
        loss, losses = of_chunk(*chunk)
        return total + loss, losses

    total, losses = jax.lax.scan(
        body, jnp.float32(0), tuple(map(chunks.split, (hidden, targets, scale)))
    )
    return total, chunks.join(losses)


def chunked_cross_entropy(
    logits: Callable[[jax.Array], jax.Array],
    hidden: Float[Array, "B T features"],
    targets: Int[Array, "B T"],
    *,
    row_groups: int = 1,
    slot_groups: int = 1,
    chunk: int = 1024,
) -> Float[jax.Array, "B T"]:
    """The cross entropy at each slot, with its gradient; arguments as of `chunked_losses`.

    For losses that are no weighted sum of it, such as those of pairs of answers.
    """
    (losses,) = _of_chunks(
        lambda hidden, targets: (cross_entropy(_scored(logits, hidden), targets),),
        (hidden, targets),
        _Chunks(targets.shape, row_groups, slot_groups, chunk),
    )
    return losses


def chunked_entropy(
    logits: Callable[[jax.Array], jax.Array],
    hidden: Float[Array, "B T features"],
    targets: Int[Array, "B T"],
    *,
    row_groups: int = 1,
    slot_groups: int = 1,
    chunk: int = 1024,
    differentiable: bool = True,
) -> tuple[Float[jax.Array, "B T"], Float[jax.Array, "B T"]]:
    """`chunked_cross_entropy`, and beside it the entropy at each slot in nats.

    `differentiable`: the entropy has a gradient too; without one it costs nothing backward.
    """

    def of_chunk(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = _scored(logits, hidden).astype(jnp.float32)
        free = scores if differentiable else jax.lax.stop_gradient(scores)
        log_probs = jax.nn.log_softmax(free, axis=-1)
        return cross_entropy(scores, targets), -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    chunks = _Chunks(targets.shape, row_groups, slot_groups, chunk)
    losses, entropy = _of_chunks(of_chunk, (hidden, targets), chunks)
    return losses, entropy


def _scored(logits: Callable[[jax.Array], jax.Array], hidden: jax.Array) -> jax.Array:
    return constrain(logits(hidden), BATCH_AXES, "sequence", None, "tensor")


def _of_chunks(
    of_chunk: Callable[..., tuple[jax.Array, ...]], leaves: tuple[Array, ...], chunks: "_Chunks"
) -> tuple[Float[jax.Array, "B T"], ...]:
    """What a function of a chunk gives, for all slots; logits are computed again backward."""
    if chunks.count > 1:
        of_chunk = jax.checkpoint(of_chunk)
    found = jax.lax.map(lambda part: of_chunk(*part), tuple(map(chunks.split, leaves)))
    return tuple(map(chunks.join, found))


def chunking(config: TrainConfig, mesh: Mesh, batch: Batch) -> dict[str, int]:
    """The chunks of logits that `train.loss_chunk` says, as the functions here are told."""
    whole = batch.targets.size
    chunk = whole if config.cross_entropy == "plain" else config.loss_chunk or whole
    return {"row_groups": row_groups(mesh), "slot_groups": slot_groups(mesh), "chunk": chunk}


class _Chunks:
    """Splits [B, T, ..] into chunks of slots, and joins what was computed of them.

    Attributes:
      count: number of chunks.
    """

    def __init__(self, shape: tuple[int, ...], row_groups: int, slot_groups: int, chunk: int):
        """Arguments as of `chunked_losses`."""
        self._batch, self._length = shape
        self._groups = slot_groups
        self._local = self._length // slot_groups
        size = min(max(chunk * row_groups // self._batch, 1), self._local)
        self.count = -(-self._local // size)
        # Equal chunks need the least padding: 13 slots by at most 8 are 7 and 7, not 8 and 8.
        self._size = -(-self._local // self.count)

    def split(self, leaf: Array) -> jax.Array:
        """[B, T, ..] -> [chunks, B, groups, size, ..], padded with 0."""
        rest = leaf.shape[2:]
        groups = leaf.reshape(self._batch, self._groups, self._local, *rest)
        missing = self.count * self._size - self._local
        padding = [(0, 0)] * 2 + [(0, missing)] + [(0, 0)] * len(rest)
        shape = (self._batch, self._groups, self.count, self._size, *rest)
        axes = (None, BATCH_AXES, "sequence", *[None] * (1 + len(rest)))
        return constrain(jnp.moveaxis(jnp.pad(groups, padding).reshape(shape), 2, 0), *axes)

    def join(self, leaf: jax.Array) -> jax.Array:
        """[chunks, B, groups, size] -> [B, T]."""
        whole = jnp.moveaxis(leaf, 0, 2).reshape(self._batch, self._groups, -1)
        return whole[..., : self._local].reshape(self._batch, self._length)
