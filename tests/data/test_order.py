"""The order of an epoch: a permutation, and a random one."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.data.order import EpochOrder


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 97, 1000, 4099])
def test_every_row_once(size):
    order = EpochOrder(size, seed=3)
    for epoch in range(3):
        rows = order(epoch, np.arange(size))
        np.testing.assert_array_equal(np.sort(rows), np.arange(size))


def test_rows_by_themselves():
    order = EpochOrder(1000, seed=3)
    whole = order(1, np.arange(1000))
    assert [int(order(1, np.array([i]))[0]) for i in (0, 17, 999)] == whole[[0, 17, 999]].tolist()


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [EpochOrder(1000, seed)(epoch, np.arange(1000)) for seed in (0, 1) for epoch in (0, 1)]
    for i, first in enumerate(orders):
        for second in orders[i + 1 :]:
            assert (first == second).mean() < 0.02


def test_orders_of_a_tiny_epoch_are_all_equally_likely():
    order = EpochOrder(4, seed=0)
    seen = [tuple(order(epoch, np.arange(4)).tolist()) for epoch in range(6000)]
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_places_of_a_large_epoch_are_uniform_and_neighbours_independent():
    rows = EpochOrder(100_003, seed=0)(0, np.arange(20_000))
    assert stats.kstest(rows / 100_003, "uniform").pvalue > 1e-4
    steps = np.diff(rows) % 100_003
    assert stats.kstest(steps / 100_003, "uniform").pvalue > 1e-4


def test_a_huge_epoch_costs_nothing():
    rows = EpochOrder(3_000_000_000, seed=0)(0, np.arange(10) + 2_999_999_990)
    assert len(set(rows.tolist())) == 10
    assert rows.max() < 3_000_000_000
