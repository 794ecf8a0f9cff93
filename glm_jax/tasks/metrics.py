"""A SeqIO metric: losses by objective of rows that a model has scored."""

from collections.abc import Mapping, Sequence

import numpy as np

from glm_jax.losses.scores import SUMS, mean_metrics


def objective_metrics(
    targets: Sequence[object],
    scores: tuple[Sequence[float], Mapping[str, Sequence[np.ndarray]]],
) -> dict[str, float]:
    """The metrics of a pre-training task, called by `seqio.Evaluator`.

        {"losses": [[0, 6.0, 0, 0, 0], ..], "count": [[0, 2, 0, 0, 0], ..], ..}
            -> {"loss": 3.0, "loss/span": 3.0, "perplexity/span": 20.1, "accuracy/span": ..}

    Args:
      targets: unused; the rows themselves hold their targets.
      scores: from the score function: a log-likelihood per row, and `SUMS` per row.

    Returns:
      As `mean_metrics`.
    """
    _, rows = scores
    return mean_metrics({name: np.sum(rows[name], axis=0) for name in SUMS})
