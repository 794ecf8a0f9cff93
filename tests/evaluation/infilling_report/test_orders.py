import itertools
import math
from collections import Counter

import numpy as np
import pytest

from glm_jax.draws import Draws, Purpose
from glm_jax.evaluation.infilling_report.orders import orders_of


@pytest.mark.parametrize(("spans", "count"), [(1, 1), (2, 2), (3, 6), (4, 24)])
def test_few_spans_have_all_their_orders(spans, count):
    found = orders_of(spans, 24, seed=0, text=0)
    assert found.exact
    assert found.chosen.all()
    assert len(found.orders) == count == math.factorial(spans)
    assert set(map(tuple, found.orders.tolist())) == set(itertools.permutations(range(spans)))
    assert found.orders[0].tolist() == list(range(spans))
    assert found.orders[found.right_to_left].tolist() == list(range(spans))[::-1]


def test_many_spans_have_different_drawn_ones_and_both_directions():
    found = orders_of(6, 24, seed=3, text=7)
    assert not found.exact
    assert found.orders[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.orders[1].tolist() == [5, 4, 3, 2, 1, 0]
    sample = found.orders[found.chosen].tolist()
    assert len(sample) == 24
    assert len(set(map(tuple, found.orders.tolist()))) == len(found.orders) in (24, 25, 26)
    assert all(sorted(order) == list(range(6)) for order in sample)
    # The first draw is the order of the row in training.
    keys = Draws(3, np.array([0]), np.array([7])).integers(Purpose.ORDER, np.array([6]))
    assert np.argsort(keys, kind="stable").tolist() in sample
    again, other = orders_of(6, 24, seed=3, text=7), orders_of(6, 24, seed=3, text=8)
    assert np.array_equal(found.orders, again.orders)
    assert found.orders.tolist() != other.orders.tolist()


def test_ranks_are_where_spans_come():
    found = orders_of(3, 6, seed=0, text=0)
    for order, ranks in zip(found.orders, found.ranks, strict=True):
        assert [order[ranks[span]] for span in range(3)] == [0, 1, 2]


def test_each_order_is_drawn_equally_often():
    """24 of 120 orders, 500 times: each 100 times, with a standard deviation of 9."""
    counts = Counter()
    for text in range(500):
        found = orders_of(5, 24, seed=1, text=text)
        counts.update(map(tuple, found.orders[found.chosen].tolist()))
    assert len(counts) == 120
    assert sum(counts.values()) == 12_000
    assert 60 < min(counts.values()) <= max(counts.values()) < 140
