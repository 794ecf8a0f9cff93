import math

import pytest

from glm_jax.evaluation.ratios import mean, ratio


def test_a_ratio_and_its_error_by_hand():
    """r = 15 / 6; residuals 2 - 2.5, 4 - 5, 9 - 7.5; error sqrt(3 / 2 * 3.5) / 6."""
    found = ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt(1.5 * (0.25 + 1.0 + 2.25)) / 6)
    assert (found.texts, found.count) == (3, 6.0)


def test_a_mean_has_the_usual_standard_error():
    """Of 1, 2, 6: mean 3, variance 14 / 2 = 7, error sqrt(7 / 3)."""
    found = mean([1.0, 2.0, 6.0])
    assert found.value == 3.0
    assert found.error == pytest.approx(math.sqrt(7 / 3))


def test_proportional_texts_have_no_error():
    assert ratio([3.0, 6.0, 1.5], [2.0, 4.0, 1.0]).error == 0.0


def test_texts_without_any_do_not_count():
    assert ratio([2.0, 7.0, 4.0], [1.0, 0.0, 1.0]) == ratio([2.0, 4.0], [1.0, 1.0])


def test_too_few():
    none, one = ratio([], []), ratio([5.0], [2.0])
    assert math.isnan(none.value)
    assert math.isnan(none.error)
    assert none.as_dict() == {"value": None, "error": None, "texts": 0, "count": 0.0}
    assert one.value == 2.5
    assert one.as_dict()["error"] is None
