"""Means over texts with standard errors: the texts are the sample, not their tokens."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and how far it may be off.

    Attributes:
      value: NaN if there is nothing to take it of.
      error: its standard error over texts; NaN for fewer than two texts.
      texts: texts that it is taken of.
      count: the sum of the weights: tokens, spans or texts.
    """

    value: float
    error: float
    texts: int
    count: float

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no NaN."""
        return {name: None if math.isnan(v) else v for name, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
      label: the group.
      estimates: by the names of columns.
    """

    label: str
    estimates: dict[str, Estimate]


def ratio(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    """sum(sums) / sum(counts): a mean per token of texts of different lengths.

        ratio([2, 4, 9], [1, 2, 3])  ->  2.5, error 0.382

    The error is that of a ratio estimator (Cochran, Sampling Techniques, section 2.11):
    sqrt(n / (n - 1) sum((y - r x)^2)) / sum(x). With all counts 1 it is the standard error of a
    mean.

    Args:
      sums, counts: [n] by text; texts with a count of 0 are left out.
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    sums, counts = sums[counts > 0], counts[counts > 0]
    texts, total = len(counts), float(counts.sum())
    if not texts:
        return Estimate(math.nan, math.nan, 0, 0.0)
    value = float(sums.sum()) / total
    if texts < 2:
        return Estimate(value, math.nan, texts, total)
    rest = float(np.square(sums - value * counts).sum())
    return Estimate(value, math.sqrt(texts / (texts - 1) * rest) / total, texts, total)


def mean(values: np.ndarray) -> Estimate:
    """The mean of one value per text."""
    return ratio(values, np.ones(len(values)))
