"""Products of activations with plain matrices, and rows of plain tables: pure functions of arrays.

Kinds of weights that are no plain array build on them (`glm_jax.models.weights`).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.sharding.mesh import slots_are_split


def linear(
    x: Float[jax.Array, "..."],
    kernel: Float[jax.Array, "..."],
    bias: Float[jax.Array, "..."] | None = None,
    num_inputs: int = 1,
) -> Float[jax.Array, "..."]:
    """Contracts the last `num_inputs` axes of x with the first of the kernel, in the dtype of x.

    Axes are merged into a product of two matrices, since contractions over several axes are slower
    on CPU, above all backward. An axis that is sharded comes first among those it is merged with,
    so it stays sharded. [B, T] are not merged if slots are sharded: every device would compute all
    of T.
    """
    lead, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[num_inputs:]
    matrix = kernel.astype(x.dtype).reshape(math.prod(kernel.shape[:num_inputs]), -1)
    rows = lead if slots_are_split() else (-1,)
    y = x.reshape(*rows, matrix.shape[0]) @ matrix
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape(-1)
    return y.reshape(*lead, *outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rows_of(
    table: Float[jax.Array, "R D"], ids: Int[jax.Array, "*rows"], partial: bool = False
) -> Float[jax.Array, "*rows D"]:
    """Rows of a table, [R, D] by ids [..] -> [.., D]. The gradient is summed in float32.

        ids 2 0 2, gradients a b c      row 2 of the table gets a + c, row 0 gets b, the others 0

    A common token has thousands of terms in a batch, the first block positions more: summed in
    bfloat16 (8 bits), all but the first few hundred are lost. On a GPU equal ids also wait for each
    other: of a step of 8,192 tokens, 98 ms on an H100, two such sums took 92. In float32, which has
    an addition of its own in memory, the whole step takes 9.

    Args:
      partial: ids outside of 0..R - 1 are allowed; their rows are 0 and get no gradient.
    """
    if partial:
        return table.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return table[ids]


def _rows_forward(table: jax.Array, ids: jax.Array, partial: bool) -> tuple[jax.Array, tuple]:
    return rows_of(table, ids, partial), (table, ids)


def _rows_backward(partial: bool, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, None]:
    table, ids = saved
    total, gradient = jnp.zeros(table.shape, jnp.float32), gradient.astype(jnp.float32)
    if partial:
        total = total.at[ids].add(gradient, mode="drop", wrap_negative_indices=False)
    else:
        total = total.at[ids].add(gradient)
    return total.astype(table.dtype), None


rows_of.defvjp(_rows_forward, _rows_backward)


@jax.custom_vjp
def scores(
    hidden: Float[jax.Array, "*shape D"], matrix: Float[jax.Array, "D V"]
) -> Float[jax.Array, "*shape V"]:
    """hidden [..., D] times a matrix [D, V]: float32 logits [..., V].

    Backward, the gradient of the logits is rounded to the dtype of `hidden` before it is
    multiplied. JAX alone would compute both products in float32, and that of the matrix has V x D
    values.
    """
    return jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)


def _scores_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, matrix = saved
    gradient = gradient.astype(hidden.dtype)
    return gradient @ matrix.T, jnp.einsum("...d,...v->dv", hidden, gradient)


scores.defvjp(lambda hidden, matrix: (scores(hidden, matrix), (hidden, matrix)), _scores_backward)
