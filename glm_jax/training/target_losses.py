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

from glm_jax.training.objective import cross_entropy

PIECE = 256


def weighted_losses(
    logits: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    targets: jax.Array,
    scale: jax.Array,
    groups: int = 1,
    piece: int = PIECE,
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
    rows, length = targets.shape
    size = rows * length // groups
    padded = -(-size // piece) * piece
    order = jnp.argsort(scale.reshape(groups, size) == 0, axis=1, stable=True)
    back = jnp.argsort(order, axis=1)

    def to_front(leaf: jax.Array) -> jax.Array:
        """[B, T, ...] -> [pieces, groups, C, ...], places with a target first."""
        leaf = _take(leaf.reshape(groups, size, *leaf.shape[2:]), order)
        leaf = jnp.pad(leaf, [(0, 0), (0, padded - size)] + [(0, 0)] * (leaf.ndim - 2))
        return jnp.moveaxis(leaf.reshape(groups, -1, piece, *leaf.shape[2:]), 1, 0)

    def to_place(leaf: jax.Array) -> jax.Array:
        """The inverse of `to_front`."""
        leaf = jnp.moveaxis(leaf, 0, 1)
        leaf = leaf.reshape(groups, padded, *leaf.shape[3:])
        return _take(leaf, back).reshape(rows, length, *leaf.shape[2:])

    # Parameters that `logits` holds become arguments: a custom gradient sees nothing else.
    example = jax.ShapeDtypeStruct((groups, piece, hidden.shape[-1]), hidden.dtype)
    pure_logits, params = jax.closure_convert(logits, example)
    targets, scale = to_front(targets), to_front(scale)
    count = jnp.sum(jnp.any(scale > 0, axis=(1, 2)))

    def loss_of_piece(hidden: jax.Array, params: Any, index: Any) -> tuple[jax.Array, jax.Array]:
        losses = cross_entropy(pure_logits(hidden, *params), targets[index])
        losses = jnp.where(scale[index] > 0, losses, 0.0)
        return jnp.sum(losses * scale[index]), losses

    @jax.custom_vjp
    def run(hidden: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        front = to_front(hidden)

        def body(index: Any, carry: Any) -> Any:
            total, losses = carry
            loss, found = loss_of_piece(front[index], params, index)
            return total + loss, losses.at[index].set(found)

        total, losses = jax.lax.fori_loop(0, count, body, (jnp.float32(0), jnp.zeros(scale.shape)))
        return total, to_place(losses)

    def forward(hidden: jax.Array, params: Any) -> Any:
        front = to_front(hidden)
        gradient_of_piece = jax.value_and_grad(loss_of_piece, argnums=(0, 1), has_aux=True)

        def body(index: Any, carry: Any) -> Any:
            total, losses, to_hidden, to_params = carry
            (loss, found), (hidden_part, params_part) = gradient_of_piece(
                front[index], params, index
            )
            return (
                total + loss,
                losses.at[index].set(found),
                to_hidden.at[index].set(hidden_part),
                jax.tree.map(jnp.add, to_params, params_part),
            )

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
        start = (jnp.float32(0), jnp.zeros(scale.shape), jnp.zeros_like(front), zeros)
        total, losses, to_hidden, to_params = jax.lax.fori_loop(0, count, body, start)
        to_params = jax.tree.map(lambda g, param: g.astype(param.dtype), to_params, params)
        return (total, to_place(losses)), (to_place(to_hidden), to_params)

    def backward(gradients: Any, cotangents: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * cotangents[0].astype(leaf.dtype), gradients)

    run.defvjp(forward, backward)
    return run(hidden, tuple(params))


def _take(leaf: jax.Array, order: jax.Array) -> jax.Array:
    """leaf [groups, N, ...] with the N of each group in the order [groups, n]."""
    return jnp.take_along_axis(leaf, order.reshape(order.shape + (1,) * (leaf.ndim - 2)), axis=1)
