import dataclasses

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.comparing import as_json, as_table, check_same, differences
from tests.evaluation.test_results import result

BEFORE, AFTER = result([0] * 6 + [1] * 4), result([1] * 5 + [0] + [1] * 4)


def test_a_difference_is_the_checkpoints_minus_the_baselines():
    found = differences([BEFORE], [AFTER])
    one = found["reviews", "accuracy"]
    assert (one.difference, one.test) == (pytest.approx(0.5), "McNemar")
    assert one.p == pytest.approx(2 / 2**5)
    head, row = as_table([BEFORE], [AFTER], found)
    assert dict(zip(head, row, strict=True)) == {
        "task": "reviews",
        "examples": "10",
        "metric": "accuracy",
        "baseline": "0.4",
        "checkpoint": "0.9",
        "difference": "+0.5",
        "95 % interval": f"{one.low:+.4g} to {one.high:+.4g}",
        "p": "0.062",
        "test": "McNemar",
    }
    (value,) = as_json(found)
    assert value["interval"] == [one.low, one.high]
    assert (value["task"], value["metric"], value["p"]) == ("reviews", "accuracy", one.p)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task": "films"}, "the same tasks on both sides; there are reviews, and films"),
        ({"shown": BEFORE.shown[:3]}, "the task 'reviews' has 10 and 3"),
        ({"fingerprint": "0"}, "those of the task 'reviews', or how they are asked, are other"),
        ({"rows": {"f1": BEFORE.rows["accuracy"]}}, "'reviews' has accuracy, and f1"),
    ],
)
def test_what_cannot_be_compared(other, message):
    changed = dataclasses.replace(AFTER, **other)
    with pytest.raises(UserError, match=message):
        check_same([BEFORE.identity], [changed.identity])
    with pytest.raises(UserError, match=message):
        differences([BEFORE], [changed])
