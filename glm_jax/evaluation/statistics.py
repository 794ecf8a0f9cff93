"""How certain a metric is, and whether two models differ: standard errors and paired tests.

Every example has a row of numbers, and a metric is a function of the sum of the rows:

    accuracy     rows [hit, 1]            sum [37, 50]       -> 0.74
    perplexity   rows [loss, tokens]      sum [180.2, 90]    -> exp(180.2 / 90)

So a bootstrap resamples rows, and never asks a model again.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64

# Of all bootstraps; equal examples give equal intervals.
SEED = 0
RESAMPLES = 2000
_AT_ONCE = 1 << 22  # numbers drawn at once

Rows = Float64[np.ndarray, "n k"]
# From the sum of rows [k] to the metric.
Value = Callable[[Float64[np.ndarray, " k"]], float]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another, on the same examples.

    Attributes:
      difference: of the metrics.
      low, high: the 95 % interval of the difference, by paired bootstrap (percentiles).
      p: the probability of a difference at least as large, either way, if there were none.
      test: "McNemar" or "bootstrap".
    """

    difference: float
    low: float
    high: float
    p: float
    test: str


def mean_error(values: Float64[np.ndarray, " n"]) -> float:
    """The standard error of a mean, s / sqrt(n) with the sample deviation s (n - 1).

    For 0 and 1 it is sqrt(p (1 - p) / (n - 1)). NaN for fewer than two values.
    """
    count = len(values)
    return float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else math.nan


def bootstrap_error(rows: Rows, value: Value) -> float:
    """The standard error of a metric by bootstrap over examples; NaN for fewer than two.

    The standard deviation of the metric over `RESAMPLES` resamples of n examples with replacement.
    """
    if len(rows) < 2:
        return math.nan
    found = [value(sums) for sums in _resampled(rows)]
    return float(np.std(found, ddof=1))


def mcnemar(first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]) -> float:
    """McNemar's exact test of two lists of 0 and 1: the two-sided p of a binomial.

        first 1 1 1 1 1 0, second 0 0 0 0 0 0: 5 examples differ, all one way: p = 2 / 2^5

    Only examples at which the two differ count. If both models were equally good, each of them
    would be as likely to fall to one as to the other.
    """
    from scipy.stats import binomtest  # takes half a second to import

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0


def compare(first: Rows, second: Rows, value: Value) -> Difference:
    """Compares a metric of two models on the same examples: second minus first.

    The p of a mean over 0 and 1 is McNemar's. Otherwise it is the bootstrap's: twice the smaller
    share of resampled differences on either side of 0 (Koehn 2004), which is 1 / RESAMPLES at
    least.

    Args:
      first, second: the rows of the examples, in one order.
      value: of a sum of rows.
    """
    known = value(second.sum(axis=0)) - value(first.sum(axis=0))
    width = first.shape[1]
    both = np.concatenate([first, second], axis=1)
    found = np.array([value(s[width:]) - value(s[:width]) for s in _resampled(both)])
    low, high = np.percentile(found, [2.5, 97.5])
    if is_binary(first) and is_binary(second):
        p, test = mcnemar(first[:, 0], second[:, 0]), "McNemar"
    else:
        sides = min((found <= 0).mean(), (found >= 0).mean())
        p, test = float(min(1.0, max(2 * sides, 1 / RESAMPLES))), "bootstrap"
    return Difference(known, float(low), float(high), p, test)


def is_binary(rows: Rows) -> bool:
    """Whether rows are [0 or 1, 1]: a mean of hits."""
    return rows.shape[1] == 2 and bool(
        np.isin(rows[:, 0], (0, 1)).all() and (rows[:, 1] == 1).all()
    )


def _resampled(rows: Rows) -> Iterator[Float64[np.ndarray, " k"]]:
    """The sums of `RESAMPLES` resamples of the rows."""
    random = np.random.default_rng(SEED)
    count, left = len(rows), RESAMPLES
    while left:
        some = min(left, max(1, _AT_ONCE // count))
        drawn = random.integers(count, size=(some, count))
        times = np.stack([np.bincount(one, minlength=count) for one in drawn]).astype(np.float64)
        yield from times @ rows
        left -= some
