"""Products and rows of plain arrays, by arithmetic that can be done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.models.products import linear, rows_of, scores


def close(found, expected, **tolerance):
    np.testing.assert_allclose(found, expected, **({"rtol": 1e-6, "atol": 1e-6} | tolerance))


@pytest.mark.parametrize("num_inputs", [1, 2])
def test_linear_contracts_the_last_axes(num_inputs):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(2, 3, 4, 5)).astype(np.float32)
    inputs = (4, 5)[2 - num_inputs :]
    kernel = draws.normal(size=(*inputs, 6, 7)).astype(np.float32)
    bias = draws.normal(size=(6, 7)).astype(np.float32)
    expected = np.tensordot(x.astype(np.float64), kernel, num_inputs)
    x, kernel, bias = map(jnp.asarray, (x, kernel, bias))
    close(linear(x, kernel, num_inputs=num_inputs), expected, atol=1e-5)
    close(linear(x, kernel, bias, num_inputs), expected + bias, atol=1e-5)
    y = linear(jnp.asarray(x, jnp.bfloat16), kernel, bias, num_inputs)
    assert (y.dtype, y.shape) == (jnp.bfloat16, expected.shape)


def test_the_gradient_of_scores_is_rounded_before_it_is_multiplied():
    """1 + 2^-10 is 1 in bfloat16; in float32 products it would show."""
    hidden = jnp.array([[1.0, 2.0], [4.0, 8.0]])
    matrix = jnp.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    ones = jnp.full((2, 3), 1 + 2.0**-10)
    for dtype, one in ((jnp.float32, 1 + 2.0**-10), (jnp.bfloat16, 1.0)):
        found, gradient = jax.vjp(scores, hidden.astype(dtype), matrix.astype(dtype))
        assert found.dtype == jnp.float32
        assert found.tolist() == [[17, 34, 68], [68, 136, 272]]
        for_hidden, for_matrix = gradient(ones)
        assert (for_hidden.dtype, for_matrix.dtype) == (dtype, dtype)
        close(for_hidden.astype(jnp.float32), one * np.array([[7, 56]] * 2), rtol=1e-7)
        close(for_matrix.astype(jnp.float32), one * np.array([[5] * 3, [10] * 3]), rtol=1e-7)


def test_the_gradient_of_rows_is_summed_in_float32():
    """1000 ones make 1000; bfloat16 stands still at 256, since 257 is none of its numbers."""
    table, ids = jnp.zeros((3, 2), jnp.bfloat16), jnp.array([1] * 1000 + [2])
    gradient = jax.grad(lambda table: rows_of(table, ids).astype(jnp.float32).sum())(table)
    assert gradient.dtype == jnp.bfloat16
    assert gradient.tolist() == [[0, 0], [1000, 1000], [1, 1]]


def test_partial_rows_are_0_outside_of_the_table_and_get_no_gradient():
    table, ids = jnp.array([[1.0], [2.0]]), jnp.array([-1, 0, 1, 2])
    rows, backward = jax.vjp(lambda table: rows_of(table, ids, True), table)
    assert rows.tolist() == [[0], [1], [2], [0]]
    assert backward(jnp.array([[10.0], [20.0], [30.0], [40.0]]))[0].tolist() == [[20], [30]]
