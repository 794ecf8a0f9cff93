"""What follows from losses that are given, by hand."""

import numpy as np
import pytest

from glm_jax.batch import SPAN
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.orders import Orders, orders_of
from glm_jax.evaluation.infilling_report.scored import Scored

TWO = HeldOutText(1, SPAN, [0] * 10, [(2, 3), (5, 8)], True, 3, 40)


def test_the_sum_over_a_span_whatever_its_rank():
    losses = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.5, 2.0, 3.0, 4.0, 5.0, 6.0]])
    one = Scored(TWO, orders_of(2, 2, seed=0, text=0), losses)
    assert one.sizes.tolist() == [2, 4]
    assert one.losses_of_spans.tolist() == [[3.0, 18.0], [3.5, 18.0]]
    assert one.totals.tolist() == [-21.0, -21.5]
    assert one.mean_losses.tolist() == [1.25, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert one.spread == 0.25


def test_the_numbers_of_the_docstring():
    losses = np.array([[1.0, 1, 1, 1, 1, 2.0], [1.4, 1, 1, 1, 1, 2.0]])
    one = Scored(TWO, orders_of(2, 2, seed=0, text=0), losses)
    assert one.totals.tolist() == pytest.approx([-7.0, -7.4])
    assert one.marginal == pytest.approx(-7.18, abs=0.001)
    assert one.spread == pytest.approx(0.2)


def test_directions_outside_the_sample_do_not_enter():
    orders = Orders(np.array([[0, 1], [1, 0], [1, 0]]), np.array([False, True, True]), False)
    losses = np.array([[50.0] + [0.0] * 5, [1.0] + [0.0] * 5, [3.0] + [0.0] * 5])
    one = Scored(TWO, orders, losses)
    assert one.mean_losses[0] == 2.0
    assert one.spread == pytest.approx(np.sqrt(2.0))  # of -1 and -3, n - 1
    assert one.marginal == pytest.approx(np.log((np.exp(-1) + np.exp(-3)) / 2))
