"""Advantages by hand, and against the definitions in plain loops."""

import numpy as np
import pytest

from glm_jax.training.rollouts.advantages import generalized, of_groups, whitened

REWARDS = np.array([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])


def test_advantages_of_groups():
    # The deviation of 1 0 0 1 with n - 1 is sqrt(1 / 3).
    each = 0.5 / (3**-0.5 + 1e-4)
    assert of_groups(REWARDS, "group").tolist() == [
        pytest.approx([each, -each, -each, each]),
        [0, 0, 0, 0],
    ]
    assert of_groups(REWARDS, "mean").tolist() == [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0]]
    whole = REWARDS.std(ddof=1) + 1e-4
    np.testing.assert_allclose(of_groups(REWARDS, "batch")[0] * whole, [0.5, -0.5, -0.5, 0.5])


def test_generalised_advantages_are_their_definition():
    """A_t = sum over k of (gamma lambda)^k delta_(t + k), in plain loops."""
    draws = np.random.default_rng(0)
    rewards, values = draws.normal(size=(3, 6)), draws.normal(size=(3, 6))
    lengths, gamma, lam = [6, 1, 4], 0.9, 0.8
    found = generalized(rewards, values, np.array(lengths), gamma, lam)
    for row, length in enumerate(lengths):
        for t in range(length):
            wanted = 0.0
            for k in range(length - t):
                after = values[row, t + k + 1] if t + k + 1 < length else 0.0
                delta = rewards[row, t + k] + gamma * after - values[row, t + k]
                wanted += (gamma * lam) ** k * delta
            assert found[row, t] == pytest.approx(wanted)
        assert (found[row, length:] == 0).all()


@pytest.mark.parametrize("end", [np.nan, 1e9])
def test_nothing_behind_an_answer_is_read(end):
    rewards, values = np.array([[0.0, 1.0, end]]), np.array([[0.5, 0.25, end]])
    found = generalized(rewards, values, np.array([2]), 1.0, 1.0)
    # lambda 1: the return less the value.
    assert found.tolist() == [[0.5, 0.75, 0.0]]


def test_whitened_advantages():
    there = np.array([[True, True, False], [True, False, False]])
    found = whitened(np.array([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), there)
    deviation = np.sqrt(2 / 3)
    np.testing.assert_allclose(found, [[-1 / deviation, 0, 0], [1 / deviation, 0, 0]], atol=1e-7)
    assert whitened(np.ones((1, 2)), np.zeros((1, 2), bool)).tolist() == [[0, 0]]
