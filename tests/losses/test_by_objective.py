import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SPAN, Batch
from glm_jax.losses.by_objective import (
    coefficients,
    cross_entropy,
    objective_sums,
    summarize,
)

WEIGHTS = np.array([[1, 1, 0], [2, 0, 0]], np.float32)
OBJECTIVE = np.array([[SPAN, SPAN, 0], [DOCUMENT, 0, 0]], np.int32)
LOSSES = np.array([[1.0, 2.0, 100.0], [4.0, 100.0, np.inf]], np.float32)


def make_batch(weights=WEIGHTS, objective=OBJECTIVE):
    zeros = np.zeros_like(weights, np.int32)
    return Batch(
        tokens=zeros,
        targets=zeros,
        loss_weights=weights,
        positions=zeros,
        block_positions=zeros,
        attend_start=zeros,
        attend_end=zeros,
        objective=objective,
    )


def test_cross_entropy_of_known_probabilities():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    found = cross_entropy(logits + 7.0, jnp.array([1, 2]))
    np.testing.assert_allclose(found, [-np.log(0.25), -np.log(0.8)], rtol=1e-6)


def test_cross_entropy_is_float32_of_bfloat16_logits():
    logits = jnp.array([[3.0, 0.0]], jnp.bfloat16)
    found = cross_entropy(logits, jnp.array([1]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [np.log1p(np.exp(3.0))], rtol=1e-6)


def test_gradient_of_cross_entropy_is_softmax_less_one_hot():
    logits = jnp.array([0.3, -1.2, 2.0])
    found = jax.grad(lambda x: cross_entropy(x, jnp.array(2)))(logits)
    expected = np.exp(logits) / np.exp(logits).sum() - [0, 0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token_mean", [[0.25, 0.25, 0], [0.5, 0, 0]]),
        ("objective_mean", [[0.5, 0.5, 0], [2.0, 0, 0]]),
    ],
)
def test_coefficients_of_the_docstring(reduction, expected):
    np.testing.assert_allclose(coefficients(make_batch(), reduction), expected)


@pytest.mark.parametrize(("reduction", "loss"), [("token_mean", 2.75), ("objective_mean", 9.5)])
def test_summary_and_coefficients_give_the_same_loss(reduction, loss):
    """(1 + 2 + 2 * 4) / 4 = 2.75, and (1 + 2) / 2 + 2 * 4 = 9.5."""
    batch = make_batch()
    found = summarize(objective_sums(LOSSES, batch), reduction)
    assert float(found["loss"]) == loss
    scale = np.asarray(coefficients(batch, reduction))
    assert float((scale * np.where(scale > 0, LOSSES, 0)).sum()) == loss
    assert float(found["loss/span"]) == 1.5
    assert float(found["loss/document"]) == 4.0
    assert np.isnan(found["loss/sentence"])


@pytest.mark.parametrize("reduction", ["token_mean", "objective_mean"])
def test_a_batch_without_targets_has_loss_0(reduction):
    batch = make_batch(np.zeros_like(WEIGHTS))
    assert not np.asarray(coefficients(batch, reduction)).any()
    assert float(summarize(objective_sums(LOSSES, batch), reduction)["loss"]) == 0.0


def test_objective_may_be_left_out():
    batch = make_batch(objective=None)
    np.testing.assert_allclose(
        coefficients(batch, "objective_mean"), [[1 / 3, 1 / 3, 0], [2 / 3, 0, 0]]
    )
    assert float(summarize(objective_sums(LOSSES, batch), "token_mean")["loss"]) == 2.75


@pytest.mark.parametrize("reduction", ["token_mean", "objective_mean"])
def test_sums_of_parts_are_those_of_the_whole(reduction):
    whole = make_batch()
    parts = [jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], whole) for row in range(2)]
    added = jax.tree.map(
        jnp.add, *[objective_sums(LOSSES[i : i + 1], part) for i, part in enumerate(parts)]
    )
    expected = summarize(objective_sums(LOSSES, whole), reduction)
    np.testing.assert_equal(jax.device_get(summarize(added, reduction)), jax.device_get(expected))


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="token_mean"):
        coefficients(dataclasses.replace(make_batch()), "mean")
