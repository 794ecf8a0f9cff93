import numpy as np

from glm_jax.evaluation.asked import Outcome, Prepared, hit
from glm_jax.evaluation.examples import Example
from glm_jax.evaluation.metrics import measure


def test_hits_are_rows_of_a_mean():
    rows = np.stack([hit(True), hit(False), hit(True)])
    assert measure("accuracy", rows).value == 2 / 3


def test_rows_of_an_outcome_are_its_own():
    one, other = Outcome("a", {}), Outcome("b", {})
    one.rows["first_5"] = hit(True)
    assert other.rows == {}
    assert Prepared(Example("", "")).prompt == []
