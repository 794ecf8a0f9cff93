"""Cross entropy with logits only where something is predicted.

A third of a GLM's places or less have a target, and over V the logits of the others would be a
tenth of a step's work. Places with a target are brought to the front and taken C at a time, in a
loop that ends after the last of them; shapes stay static:

    weights   0 1 0 0 | 1 1 0 0      order   1 4 5 0 2 3 6 7      C = 2: [1 4] [5 0] are computed

The gradient is taken on the way forward, while a piece's logits are at hand: they are computed
once, and never are there more than C x V of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.losses.by_objective import cross_entropy


def target_losses(
    logits: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    targets: jax.Array,
    scale: jax.Array,
    groups: int = 1,
    piece: int = 256,
) -> tuple[jax.Array, jax.Array]:
    """sum(scale * cross entropy), and the cross entropy at each place with a scale above 0.

    Args:
      logits: [..., D] -> [..., V]; may hold parameters, which get their gradient.
      hidden: [B, T, D].
      targets: [B, T] int32.
      scale: [B, T] float32, at least 0; not differentiated.
      groups: parts of the rows that are ordered each for itself: as many as the mesh splits rows
        into, so that no place moves to another device.
      piece: C, places of a group taken at a time.

    Returns:
      The sum, and [B, T] float32 losses, 0 where scale is 0. Only the sum has a gradient.
    """
    order = _Order(scale > 0, groups, piece)
    targets, scale = order.to_front(targets), order.to_front(scale)
    # Parameters that `logits` holds become arguments: a custom gradient sees nothing else.
    example = jax.ShapeDtypeStruct((groups, piece, hidden.shape[-1]), hidden.dtype)
    pure_logits, params = jax.closure_convert(logits, example)

    def loss_of_piece(hidden: jax.Array, params: Any, index: Any) -> tuple[jax.Array, jax.Array]:
        losses = cross_entropy(pure_logits(hidden, *params), targets[index])
        losses = jnp.where(scale[index] > 0, losses, 0.0)
        return jnp.sum(losses * scale[index]), losses

    @jax.custom_vjp
    def run(hidden: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        front = order.to_front(hidden)

        def body(index: Any, carry: Any) -> Any:
            total, losses = carry
            loss, found = loss_of_piece(front[index], params, index)
            return total + loss, losses.at[index].set(found)

        start = (jnp.float32(0), jnp.zeros(scale.shape))
        total, losses = jax.lax.fori_loop(0, order.num_pieces, body, start)
        return total, order.to_place(losses)

    def forward(hidden: jax.Array, params: Any) -> Any:
        return _with_gradient(loss_of_piece, order, order.to_front(hidden), params)

    def backward(gradients: Any, cotangents: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * cotangents[0].astype(leaf.dtype), gradients)

    run.defvjp(forward, backward)
    return run(hidden, tuple(params))


def _with_gradient(loss_of_piece: Callable, order: "_Order", front: jax.Array, params: Any) -> Any:
    """((sum, losses), (gradient of hidden, gradient of params)) in one loop over the pieces."""
    gradient_of_piece = jax.value_and_grad(loss_of_piece, argnums=(0, 1), has_aux=True)

    def body(index: Any, carry: Any) -> Any:
        total, losses, to_hidden, to_params = carry
        (loss, found), (hidden_part, params_part) = gradient_of_piece(front[index], params, index)
        return (
            total + loss,
            losses.at[index].set(found),
            to_hidden.at[index].set(hidden_part),
            jax.tree.map(jnp.add, to_params, params_part),
        )

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    start = (jnp.float32(0), jnp.zeros(front.shape[:3]), jnp.zeros_like(front), zeros)
    total, losses, to_hidden, to_params = jax.lax.fori_loop(0, order.num_pieces, body, start)
    to_params = jax.tree.map(lambda g, param: g.astype(param.dtype), to_params, params)
    return (total, order.to_place(losses)), (order.to_place(to_hidden), to_params)


class _Order:
    """Brings the places of a batch that count to the front of their group, and back.

    Attributes:
      num_pieces: int32 scalar, pieces until no group has a place that counts.
    """

    def __init__(self, counts: jax.Array, groups: int, piece: int):
        """`counts` is bool [B, T]."""
        self._shape, self._groups, self._piece = counts.shape, groups, piece
        counts = counts.reshape(groups, -1)
        self._size = counts.shape[1]
        self._padding = -self._size % piece
        self._order = jnp.argsort(~counts, axis=1, stable=True)
        self._back = jnp.argsort(self._order, axis=1)
        self.num_pieces = (jnp.max(jnp.sum(counts, axis=1)) + piece - 1) // piece

    def to_front(self, leaf: jax.Array) -> jax.Array:
        """[B, T, ...] -> [pieces, groups, C, ...], filled up with 0."""
        rest = leaf.shape[2:]
        leaf = _take(leaf.reshape(self._groups, self._size, *rest), self._order)
        leaf = jnp.pad(leaf, [(0, 0), (0, self._padding)] + [(0, 0)] * len(rest))
        return jnp.moveaxis(leaf.reshape(self._groups, -1, self._piece, *rest), 1, 0)

    def to_place(self, leaf: jax.Array) -> jax.Array:
        """The inverse of `to_front`."""
        rest = leaf.shape[3:]
        leaf = jnp.moveaxis(leaf, 0, 1).reshape(self._groups, -1, *rest)
        return _take(leaf, self._back).reshape(*self._shape, *rest)


def _take(leaf: jax.Array, order: jax.Array) -> jax.Array:
    """leaf [groups, N, ...] with the N of each group in the order [groups, n]."""
    return jnp.take_along_axis(leaf, order.reshape(order.shape + (1,) * (leaf.ndim - 2)), axis=1)
