"""Cross entropy with logits only at slots that have a target.

At most a third of the slots of a GLM row have a target, and the logits of the others would be a
tenth of a step's work. Slots with a target are brought to the front and processed in chunks of C,
in a loop that ends after the last target. Shapes stay static:

    weights   0 1 0 0 | 1 1 0 0      order   1 4 5 0 2 3 6 7      C = 2: [1 4] [5 0] are computed

The gradient is computed in the forward pass, while the logits of a chunk are in memory. So logits
are computed once, and at most C x V of them exist at a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.losses.by_objective import cross_entropy

LossAndLosses = tuple[jax.Array, jax.Array]
# The parameters that `logits` closes over, and the gradients of the hidden states and of these.
Leaves = tuple[Array, ...]
Gradients = tuple[jax.Array, Leaves]
_Carry = tuple[jax.Array, jax.Array, jax.Array, Leaves]


def target_losses(
    logits: Callable[[jax.Array], jax.Array],
    hidden: Float[Array, "B T features"],
    targets: Int[Array, "B T"],
    scale: Float[Array, "B T"],
    groups: int = 1,
    chunk: int = 256,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, "B T"]]:
    """sum(scale * cross entropy), and the cross entropy at each slot with a scale above 0.

    Args:
      logits: [..., D] -> [..., V]; may close over parameters, which get their gradient.
      hidden: [B, T, D].
      targets: [B, T] int32.
      scale: [B, T] float32, at least 0; not differentiated.
      groups: number of groups of rows, each with an order of its own. Give the number of shards of
        the rows, so that no slot moves to another device.
      chunk: C, slots of a group that are processed at a time.

    Returns:
      The sum, and [B, T] float32 losses, 0 where scale is 0. Only the sum has a gradient.
    """
    order = _Order(jnp.asarray(scale) > 0, groups, chunk)
    targets, scale = order.to_front(targets), order.to_front(scale)
    # Parameters in `logits` become arguments: a custom gradient reaches nothing else.
    example = jax.ShapeDtypeStruct((groups, chunk, hidden.shape[-1]), hidden.dtype)
    pure_logits, params = jax.closure_convert(logits, example)

    def loss_of_chunk(hidden: jax.Array, params: Leaves, index: jax.Array) -> LossAndLosses:
        losses = cross_entropy(pure_logits(hidden, *params), targets[index])
        losses = jnp.where(scale[index] > 0, losses, 0.0)
        return jnp.sum(losses * scale[index]), losses

    @jax.custom_vjp
    def run(hidden: jax.Array, params: Leaves) -> LossAndLosses:
        front = order.to_front(hidden)

        def body(index: jax.Array, carry: LossAndLosses) -> LossAndLosses:
            total, losses = carry
            loss, found = loss_of_chunk(front[index], params, index)
            return total + loss, losses.at[index].set(found)

        start = (jnp.float32(0), jnp.zeros(scale.shape))
        total, losses = jax.lax.fori_loop(0, order.num_chunks, body, start)
        return total, order.to_slots(losses)

    def forward(hidden: jax.Array, params: Leaves) -> tuple[LossAndLosses, Gradients]:
        return _with_gradient(loss_of_chunk, order, order.to_front(hidden), params)

    def backward(gradients: Gradients, cotangents: LossAndLosses) -> Gradients:
        return jax.tree.map(lambda leaf: leaf * cotangents[0].astype(leaf.dtype), gradients)

    run.defvjp(forward, backward)
    return run(jnp.asarray(hidden), tuple(params))


def _with_gradient(
    loss_of_chunk: Callable[[jax.Array, Leaves, jax.Array], LossAndLosses],
    order: "_Order",
    front: jax.Array,
    params: Leaves,
) -> tuple[LossAndLosses, Gradients]:
    """((sum, losses), (gradient of hidden, gradient of params)) in one loop over the chunks."""
    gradient_of_chunk = jax.value_and_grad(loss_of_chunk, argnums=(0, 1), has_aux=True)

    def body(index: jax.Array, carry: _Carry) -> _Carry:
        total, losses, to_hidden, to_params = carry
        (loss, found), (of_hidden, of_params) = gradient_of_chunk(front[index], params, index)
        return (
            total + loss,
            losses.at[index].set(found),
            to_hidden.at[index].set(of_hidden),
            jax.tree.map(jnp.add, to_params, of_params),
        )

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    start = (jnp.float32(0), jnp.zeros(front.shape[:3]), jnp.zeros_like(front), zeros)
    total, losses, to_hidden, to_params = jax.lax.fori_loop(0, order.num_chunks, body, start)
    to_params = jax.tree.map(lambda g, param: g.astype(param.dtype), to_params, params)
    return (total, order.to_slots(losses)), (order.to_slots(to_hidden), to_params)


class _Order:
    """Permutes the slots of a batch: those with a target come first in their group; and back.

    Attributes:
      num_chunks: int32 scalar, chunks until no group has a target left.
    """

    def __init__(self, has_target: jax.Array, groups: int, chunk: int):
        """`has_target` is bool [B, T]."""
        self._shape, self._groups, self._chunk = has_target.shape, groups, chunk
        has_target = has_target.reshape(groups, -1)
        self._size = has_target.shape[1]
        self._padding = -self._size % chunk
        self._order = jnp.argsort(~has_target, axis=1, stable=True)
        self._back = jnp.argsort(self._order, axis=1)
        self.num_chunks = (jnp.max(jnp.sum(has_target, axis=1)) + chunk - 1) // chunk

    def to_front(self, leaf: Array) -> jax.Array:
        """[B, T, ...] -> [chunks, groups, C, ...], padded with 0."""
        rest = leaf.shape[2:]
        leaf = _take(leaf.reshape(self._groups, self._size, *rest), self._order)
        leaf = jnp.pad(leaf, [(0, 0), (0, self._padding)] + [(0, 0)] * len(rest))
        return jnp.moveaxis(leaf.reshape(self._groups, -1, self._chunk, *rest), 1, 0)

    def to_slots(self, leaf: jax.Array) -> jax.Array:
        """The inverse of `to_front`."""
        rest = leaf.shape[3:]
        leaf = jnp.moveaxis(leaf, 0, 1).reshape(self._groups, -1, *rest)
        return _take(leaf, self._back).reshape(*self._shape, *rest)


def _take(leaf: Array, order: jax.Array) -> jax.Array:
    """Takes the elements `order` [groups, n] of each group of leaf [groups, N, ...]."""
    return jnp.take_along_axis(leaf, order.reshape(order.shape + (1,) * (leaf.ndim - 2)), axis=1)
