"""Adafactor's factored second moment: a row and a column instead of a matrix (arXiv:1804.04235).

AdamW keeps two moments per parameter. Adafactor keeps, for a matrix [I, O], the means of the
squared gradient over each row and over each column, and estimates the whole by their product:

    g^2 = 1 4      rows = mean 2.5, 10      columns = mean 2.5, 10     estimate = 1  4
          4 16                                                                    4 16

This implements sections 4 (factored moments), 6 (clipping of the update by its root mean square)
and 7.2 (decay 1 - t^-0.8) of the article, without momentum. The learning rate is absolute, as for
AdamW, not relative to the size of the parameter. Stacked layers are treated one by one, so that
stacked and listed layers train alike. optax factors the two largest dimensions of an array
instead, which for a kernel [L, D, N, H] may be layers or heads (decision 025).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from glm_jax.models.trees import Params
from glm_jax.sharding.rules import logical_axes, path_name

# Published settings: matrices with a smaller side are not factored; a constant that keeps the
# estimate above 0; largest root mean square of an update.
MIN_SIZE = 128
EPSILON = 1e-30
CLIP = 1.0


class FactoredMoments(NamedTuple):
    """The state: three trees like the parameters, with [1] where a parameter has no such moment.

    Attributes:
      count: int32, number of updates.
      rows: for factored matrices, the mean over outputs: [D] for a kernel [D, N, H].
      columns: for factored matrices, the mean over inputs: [N, H] for that kernel.
      squares: for all other parameters, the unfactored second moment.
    """

    # The name is stored in checkpoints, so it hides the method of tuples.
    count: jax.Array  # type: ignore[assignment]
    rows: Params
    columns: Params
    squares: Params


def scale_by_factored_moments() -> optax.GradientTransformation:
    """Divides a gradient by the root of its factored second moment, and clips the result."""

    def init(params: Params) -> FactoredMoments:
        def zeros(keep: str) -> Params:
            return jax.tree.map_with_path(
                lambda path, param: _zeros(keep, path_name(path), param), params
            )

        return FactoredMoments(jnp.int32(0), zeros("rows"), zeros("columns"), zeros("squares"))

    def update(
        gradients: Params, state: FactoredMoments, params: Params | None = None
    ) -> tuple[Params, FactoredMoments]:
        count = state.count + 1
        decay = 1.0 - count.astype(jnp.float32) ** -0.8
        trees = gradients, state.rows, state.columns, state.squares
        results = jax.tree.map_with_path(
            lambda path, gradient, *moments: _scale(path_name(path), gradient, moments, decay),
            *trees,
        )
        updates, *moments = jax.tree.transpose(
            jax.tree.structure(gradients), jax.tree.structure((0,) * 4), results
        )
        return updates, FactoredMoments(count, *moments)

    return optax.GradientTransformation(init, update)


def moment_axes(name: str, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The input dimensions and the output dimensions of parameter `name`.

        layers/attention/query/kernel [L, D, N, H] -> (1,), (2, 3)
        layers/attention/out/kernel   [L, N, H, D] -> (1, 2), (3,)

    Vectors have no output dimension; a leading axis of layers is neither input nor output.
    """
    axes = logical_axes(name, rank)
    first = int(axes[0] == "layers")
    if "embed" not in axes:
        return tuple(range(first, rank)), ()
    # Every matrix maps from or to the model's width.
    split = axes.index("embed") + int(axes[first] == "embed")
    return tuple(range(first, split)), tuple(range(split, rank))


def _is_factored(name: str, shape: tuple[int, ...]) -> bool:
    inputs, outputs = moment_axes(name, len(shape))
    sides = [math.prod(shape[axis] for axis in axes) for axes in (inputs, outputs)]
    return bool(outputs) and min(sides) >= MIN_SIZE


def _zeros(keep: str, name: str, param: jax.Array) -> jax.Array:
    inputs, outputs = moment_axes(name, param.ndim)
    if _is_factored(name, param.shape) == (keep == "squares"):
        return jnp.zeros((*param.shape[: (inputs + outputs)[0]], 1), jnp.float32)
    dropped = {"rows": outputs, "columns": inputs, "squares": ()}[keep]
    shape = [size for axis, size in enumerate(param.shape) if axis not in dropped]
    return jnp.zeros(shape, jnp.float32)


def _scale(
    name: str, gradient: jax.Array, moments: tuple[jax.Array, ...], decay: jax.Array
) -> tuple[jax.Array, ...]:
    """(update, rows, columns, squares) of one parameter."""
    rows, columns, squares = moments
    inputs, outputs = moment_axes(name, gradient.ndim)
    gradient32 = gradient.astype(jnp.float32)
    square = jnp.square(gradient32) + EPSILON
    if _is_factored(name, gradient.shape):
        rows = decay * rows + (1 - decay) * jnp.mean(square, outputs)
        columns = decay * columns + (1 - decay) * jnp.mean(square, inputs)
        row = jnp.expand_dims(rows, outputs)
        estimate = row / jnp.mean(row, inputs, keepdims=True) * jnp.expand_dims(columns, inputs)
    else:
        squares = decay * squares + (1 - decay) * square
        estimate = squares
    update = gradient32 * jax.lax.rsqrt(estimate)
    size = jnp.sqrt(jnp.mean(jnp.square(update), inputs + outputs, keepdims=True))
    update = update / jnp.maximum(1.0, size / CLIP)
    return update.astype(gradient.dtype), rows, columns, squares
