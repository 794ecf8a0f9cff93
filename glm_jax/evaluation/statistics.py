"""How certain a metric is, and whether two models differ: standard errors and paired tests.

Every example has a row of numbers, and a metric is a function of the sum of the rows:

    accuracy     rows [hit, 1]            sum [37, 50]       -> 0.74
    perplexity   rows [loss, tokens]      sum [180.2, 90]    -> exp(180.2 / 90)

So a bootstrap resamples rows, and never asks a model again.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

# Of all bootstraps; equal examples give equal intervals.
SEED = 0
RESAMPLES = 2000
_AT_ONCE = 1 << 22  # numbers drawn at once

Rows = Float64[np.ndarray, "n k"]
# From the sum of rows [k] to the metric.
Value = Callable[[Float64[np.ndarray, " k"]], float]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and how far it may be off.

    Attributes:
      value: NaN if there is nothing to take it of.
      error: its standard error over texts, or other examples; NaN for fewer than two.
      texts: how many it is taken of.
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


def ratio(sums: ArrayLike, counts: ArrayLike) -> Estimate:
    """sum(sums) / sum(counts): a mean per token of texts of different lengths.

        ratio([2, 4, 9], [1, 2, 3])  ->  2.5, error 0.382

    The error is that of a ratio estimator (Cochran, Sampling Techniques, section 2.11):
    sqrt(n / (n - 1) sum((y - r x)^2)) / sum(x). With all counts 1 it is the standard error of a
    mean.

    Args:
      sums, counts: [n] by text; texts with a count of 0 are left out.
    """
    y, x = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    y, x = y[x > 0], x[x > 0]
    texts, total = len(x), float(x.sum())
    if not texts:
        return Estimate(math.nan, math.nan, 0, 0.0)
    value = float(y.sum()) / total
    if texts < 2:
        return Estimate(value, math.nan, texts, total)
    rest = float(np.square(y - value * x).sum())
    return Estimate(value, math.sqrt(texts / (texts - 1) * rest) / total, texts, total)


def mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of one value per example; its error is s / sqrt(n), of the sample deviation s.

    For 0 and 1 that is sqrt(p (1 - p) / (n - 1)).
    """
    return ratio(values, np.ones(len(values)))


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
