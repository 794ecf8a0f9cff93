"""Losses by objective of rows that a model has scored."""

import numpy as np
import pytest

from glm_jax.batch import NUM_OBJECTIVES
from glm_jax.losses.scores import SUMS

pytest.importorskip("seqio")
objective_metrics = pytest.importorskip("glm_jax.tasks.metrics").objective_metrics

pytestmark = pytest.mark.tensorflow


def test_the_metric_of_two_rows():
    sums = {name: [np.zeros(NUM_OBJECTIVES), np.zeros(NUM_OBJECTIVES)] for name in SUMS}
    for name, first, second in (("losses", 6.0, 2.0), ("count", 3, 1), ("correct", 1, 0)):
        sums[name][0][3], sums[name][1][3] = first, second
    sums["weighted_losses"], sums["weights"] = sums["losses"], sums["count"]
    assert objective_metrics([], ([-6.0, -2.0], sums)) == {
        "loss": 2.0,
        "targets": 4.0,
        "loss/document": 2.0,
        "perplexity/document": np.exp(2.0),
        "accuracy/document": 0.25,
    }


def test_the_order_of_rows_and_the_targets_change_nothing():
    draws = np.random.default_rng(0)
    sums = {name: draws.integers(1, 9, (6, NUM_OBJECTIVES)).astype(float) for name in SUMS}
    whole = objective_metrics([], ([0.0] * 6, sums))
    turned = {name: values[::-1] for name, values in sums.items()}
    assert objective_metrics(["x"] * 6, ([0.0] * 6, turned)) == pytest.approx(whole)
    # A row that is scored twice weighs twice.
    twice = {name: np.concatenate([values, values]) for name, values in sums.items()}
    again = objective_metrics([], ([0.0] * 12, twice))
    assert again.pop("targets") == 2 * whole["targets"]
    assert again == pytest.approx({k: v for k, v in whole.items() if k != "targets"})
