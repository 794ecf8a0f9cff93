import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from glm_jax.evaluation import statistics
from glm_jax.evaluation.metrics import ratio
from glm_jax.evaluation.statistics import bootstrap_error, compare, is_binary, mcnemar, mean


def hits(values):
    return np.stack([values, np.ones(len(values))], axis=1).astype(float)


def test_the_error_of_a_mean_of_hits_is_the_binomials():
    values = np.array([1.0] * 30 + [0.0] * 10)
    assert mean(values).error == pytest.approx(math.sqrt(0.75 * 0.25 / 39))
    assert math.isnan(mean(np.array([1.0])).error)


def test_a_bootstrap_of_a_mean_agrees_with_its_formula():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    assert bootstrap_error(hits(values), ratio) == pytest.approx(mean(values).error, rel=0.05)
    assert math.isnan(bootstrap_error(hits(values[:1]), ratio))


def test_a_bootstrap_is_the_same_each_time():
    rows = hits(np.random.default_rng(2).normal(size=50))
    assert bootstrap_error(rows, ratio) == bootstrap_error(rows, ratio)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0], 2 / 2**5),
        # 1 against 4: (1 + 5) / 2^5, twice.
        ([1, 0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1], 2 * 6 / 2**5),
        ([1, 0, 1, 0], [0, 1, 1, 0], 1.0),
        ([1, 0], [1, 0], 1.0),
    ],
)
def test_mcnemar_counts_what_differs(first, second, p):
    assert mcnemar(np.array(first, float), np.array(second, float)) == pytest.approx(p)


def test_a_comparison_is_second_minus_first():
    first, second = np.array([0.0] * 30 + [1.0] * 10), np.array([1.0] * 25 + [0.0] * 5 + [1.0] * 10)
    found = compare(hits(first), hits(second), ratio)
    assert found.difference == pytest.approx(25 / 40)
    assert found.low < found.difference < found.high
    # The deviation of the paired difference, not of two independent means.
    deviation = np.std(second - first, ddof=1) / math.sqrt(40)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert (found.test, found.p) == ("McNemar", pytest.approx(2 / 2**25))


def test_other_metrics_have_the_p_of_the_bootstrap():
    random = np.random.default_rng(3)
    first = random.normal(1.0, 1.0, 60)
    second = first + random.normal(0.12, 0.5, 60)
    found = compare(hits(first), hits(second), ratio)
    assert found.test == "bootstrap"
    assert found.p == pytest.approx(ttest_rel(first, second).pvalue, abs=0.03)
    same = compare(hits(first), hits(first), ratio)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert compare(hits(first), hits(first + 9), ratio).p == 1 / 2000


def test_only_hits_are_binary():
    assert is_binary(hits(np.array([0, 1, 1])))
    assert not is_binary(hits(np.array([0, 0.5])))
    assert not is_binary(np.array([[1.0, 2.0]]))


def test_a_ratio_and_its_error_by_hand():
    """r = 15 / 6; residuals 2 - 2.5, 4 - 5, 9 - 7.5; error sqrt(3 / 2 * 3.5) / 6."""
    found = statistics.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt(1.5 * (0.25 + 1.0 + 2.25)) / 6)
    assert (found.texts, found.count) == (3, 6.0)


def test_a_mean_has_the_usual_standard_error():
    """Of 1, 2, 6: mean 3, variance 14 / 2 = 7, error sqrt(7 / 3)."""
    found = mean([1.0, 2.0, 6.0])
    assert found.value == 3.0
    assert found.error == pytest.approx(math.sqrt(7 / 3))


def test_proportional_texts_have_no_error():
    assert statistics.ratio([3.0, 6.0, 1.5], [2.0, 4.0, 1.0]).error == 0.0


def test_texts_without_any_do_not_count():
    assert statistics.ratio([2.0, 7.0, 4.0], [1.0, 0.0, 1.0]) == statistics.ratio(
        [2.0, 4.0], [1.0, 1.0]
    )


def test_too_few():
    none, one = statistics.ratio([], []), statistics.ratio([5.0], [2.0])
    assert math.isnan(none.value)
    assert math.isnan(none.error)
    assert none.as_dict() == {"value": None, "error": None, "texts": 0, "count": 0.0}
    assert one.value == 2.5
    assert one.as_dict()["error"] is None
