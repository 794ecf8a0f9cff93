import math

import numpy as np

from glm_jax.losses.scores import SUMS, mean_metrics


def test_means_by_objective():
    sums = {name: np.zeros(6) for name in SUMS}
    sums["losses"][[1, 2]] = 6.0, 3.0
    sums["count"][[1, 2]] = 2, 1
    sums["correct"][1] = 1
    sums["weights"][[1, 2]] = 2, 0.5
    sums["weighted_losses"][[1, 2]] = 6.0, 1.5
    assert mean_metrics(sums) == {
        "loss": 3.0,
        "targets": 3.0,
        "loss/span": 3.0,
        "perplexity/span": math.exp(3.0),
        "accuracy/span": 0.5,
        "loss/sentence": 3.0,
        "perplexity/sentence": math.exp(3.0),
        "accuracy/sentence": 0.0,
    }


def test_nothing_to_predict():
    assert mean_metrics({name: np.zeros(6) for name in SUMS}) == {"loss": 0.0, "targets": 0.0}
