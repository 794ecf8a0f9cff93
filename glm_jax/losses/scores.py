"""Metrics of an evaluation by objective, from sums over rows."""

from collections.abc import Mapping

import numpy as np

from glm_jax.batch import OBJECTIVES

# Sums over rows, [6] each, by the value of `Batch.objective`: cross entropies, number of targets,
# targets that the model ranks first, cross entropies times `loss_weights`, and `loss_weights`.
SUMS = ("losses", "count", "correct", "weighted_losses", "weights")


def mean_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics from sums over rows.

    Args:
      sums: [6] each, by the names of `SUMS`; losses are in nats.

    Returns:
      `loss`, the mean weighted by the loss weights; `targets`, their number; and `loss/NAME`,
      `perplexity/NAME` and `accuracy/NAME` for each objective that has targets.
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
