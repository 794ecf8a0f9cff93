"""Means by objective from sums over rows: what every evaluation of rows ends in."""

from collections.abc import Mapping

import numpy as np

from glm_jax.batch import OBJECTIVES

# Sums that a row is scored by, each five numbers, by the value of `Batch.objective`: cross
# entropies, targets, targets that the model ranks first, and the first two with `loss_weights`.
SUMS = ("losses", "count", "correct", "weighted_losses", "weights")


def mean_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means from sums over rows.

    Args:
      sums: [5] each, by `SUMS`; natural logarithms.

    Returns:
      `loss`, weighted by the loss weights; `targets`, their number; and for each objective that has
      any `loss/NAME`, `perplexity/NAME` and `accuracy/NAME`.
    """
    total = float(sums["weights"].sum())
    values = {
        "loss": float(sums["weighted_losses"].sum()) / total if total else 0.0,
        "targets": float(sums["count"].sum()),
    }
    for name, group in OBJECTIVES.items():
        count = float(sums["count"][group])
        if count:
            loss = float(sums["losses"][group]) / count
            values[f"loss/{name}"] = loss
            values[f"perplexity/{name}"] = float(np.exp(loss))
            values[f"accuracy/{name}"] = float(sums["correct"][group]) / count
    return values
