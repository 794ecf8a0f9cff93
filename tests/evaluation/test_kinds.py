import dataclasses

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.kinds import KINDS, kind_of
from glm_jax.evaluation.metrics import METRICS, TEXT_METRICS, first_k
from glm_jax.evaluation.task_spec import Spec


@pytest.mark.parametrize("name", KINDS)
def test_kinds_speak_of_keys_and_metrics_that_there_are(name):
    kind = KINDS[name]
    assert kind.keys <= {field.name for field in dataclasses.fields(Spec)}
    assert set(kind.default) <= set(kind.metrics)
    assert all(first_k(metric) or metric in METRICS for metric in kind.metrics)


def test_all_metrics_have_a_kind():
    used = {metric for kind in KINDS.values() for metric in kind.metrics}
    assert used >= {*METRICS, *TEXT_METRICS}
    assert kind_of("fill", "t.toml") is KINDS["fill"]


def test_a_kind_that_there_is_not():
    with pytest.raises(UserError, match=r"t\.toml: unknown kind 'chioce' \(did you mean 'choice'"):
        kind_of("chioce", "t.toml")
    with pytest.raises(UserError, match="unknown kind 3; there are choice, generate"):
        kind_of(3, "t.toml")
