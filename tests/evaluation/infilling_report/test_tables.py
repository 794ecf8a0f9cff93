"""Tables of two texts whose losses are given, with numbers by hand."""

import numpy as np
import pytest

from glm_jax.batch import SPAN
from glm_jax.evaluation.infilling_report import tables
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.orders import orders_of
from glm_jax.evaluation.infilling_report.scored import Scored

# Two spans of one and two tokens in a document of 20, of which tokens 10.. are seen.
LATE = HeldOutText(0, SPAN, [0] * 11, [(1, 2), (9, 11)], True, 10, 20)
# One span of one token at the beginning of a document of 10.
EARLY = HeldOutText(1, SPAN, [0] * 11, [(1, 2)], True, 0, 10)
# Order 0 1, then order 1 0; targets a E | b c E.
A = Scored(LATE, orders_of(2, 2, 0, 0), np.array([[4.0, 1, 2, 3, 1], [2.0, 1, 3, 3, 1]]))
B = Scored(EARLY, orders_of(1, 2, 0, 1), np.array([[6.0, 0.5]]))


def values(lines, column):
    return {line.label: line.estimates[column].value for line in lines}


def test_orders():
    """Totals -11 and -10: mean -10.5, marginal log((e^-11 + e^-10) / 2), deviation 0.5."""
    lines = tables.orders_table([A, B])
    found = values(lines, "per text")
    assert found["left to right"] == -11.0
    assert found["right to left"] == -10.0
    assert found["mean over orders"] == -10.5
    marginal = np.log((np.exp(-11) + np.exp(-10)) / 2)
    assert found["marginal"] == pytest.approx(marginal)
    assert found["mean over orders - left to right"] == 0.5
    assert found["right to left - left to right"] == 1.0
    assert found["marginal - mean over orders"] == pytest.approx(marginal + 10.5)
    assert found["standard deviation over orders"] == 0.5
    assert values(lines, "per span")["left to right"] == -5.5
    assert values(lines, "per token")["left to right"] == -2.2
    # The text with one span has no orders to compare.
    assert lines[0].estimates["per text"].texts == 1


def test_objectives_are_means_over_tokens():
    """10.5 + 6.5 nats over 5 + 2 targets."""
    lines = tables.by_objective({"span": [A, B], "sentence": []})
    found = values(lines, "loss")
    assert found["span"] == pytest.approx(17 / 7)
    assert np.isnan(found["sentence"])


def test_span_lengths():
    """Length 1: 3 1 and 6 .5; length 2: 2.5 3 1."""
    lines = tables.by_span_length([A, B])
    assert values(lines, "loss") == {"1": pytest.approx(10.5 / 4), "2": pytest.approx(6.5 / 3)}
    assert values(lines, "without ends") == {"1": 4.5, "2": 2.75}
    assert values(lines, "of ends") == {"1": 0.75, "2": 1.0}
    assert [line.estimates["loss"].texts for line in lines] == [2, 1]
    long = HeldOutText(0, SPAN, [0] * 60, [(1, 51)], True, 0, 60)
    one = Scored(long, orders_of(1, 2, 0, 0), np.ones((1, 51)))
    assert values(tables.by_span_length([one]), "loss") == {"32+": 1.0}


def test_deciles():
    """Document 20: tokens 10 (a), 18 (b), 19 (c); document 10: token 0. Ends are with the last."""
    found = values(tables.by_document_decile([A, B]), "without ends")
    assert found == {"0-10 %": 6.0, "50-60 %": 3.0, "90-100 %": 2.75}
    found = values(tables.by_document_decile([A, B]), "of ends")
    assert found == {"0-10 %": 0.5, "50-60 %": 1.0, "90-100 %": 1.0}
    # In the window of ten: tokens 0, 8, 9, and 0.
    found = values(tables.by_window_decile([A, B]), "loss")
    assert found == {"0-10 %": 10.5 / 4, "80-90 %": 2.5, "90-100 %": 2.0}


def test_ranks():
    """First: span 0 in the first order (5), span 1 in the second (7), halves of each; then the
    others: 3 and 6. Of the same spans, 5 + 7 first and 3 + 6 second: 3 nats less in 5 tokens."""
    lines = tables.by_rank([A, B])
    assert values(lines, "loss") == {
        "1": pytest.approx((5 + 7) / 2 / 2.5),
        "2": pytest.approx((3 + 6) / 2 / 2.5),
    }
    assert values(lines, "gain") == {"1": 0.0, "2": pytest.approx(3 / 5)}
    assert tables.by_rank([B]) == []


def test_a_gain_is_that_of_the_same_span():
    """Three spans in three of six orders: span 2 never comes first, and is not compared."""
    text = HeldOutText(0, SPAN, [0] * 9, [(1, 2), (3, 4), (5, 6)], True, 0, 9)
    orders = orders_of(3, 6, 0, 0)
    kept = np.array([order[0] != 2 for order in orders.orders.tolist()])
    orders = type(orders)(orders.orders, kept, False)
    losses = np.zeros((6, 6))
    losses[:, 0] = 1.0 + orders.ranks[:, 0]  # span 0 loses one nat per rank
    (_, _, third) = tables.by_rank([Scored(text, orders, losses)])
    # Span 0 has 1 nat first and 3 third, span 1 none; four targets.
    assert third.estimates["gain"].value == pytest.approx(-2 / 4)
    assert third.estimates["gain"].count == 4.0
