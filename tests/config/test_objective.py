"""Tests of glm_jax.config.objective: what options forbid each other."""

import dataclasses

import pytest

from glm_jax.config import Config, ObjectiveConfig, PublishedOptions, from_dict, to_dict
from glm_jax.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"single_span_rate": 1.5},
            r"objective\.single_span_rate must be between 0 and 1; got 1\.5",
        ),
        ({"max_span_length": 0}, r"objective\.max_span_length must be at least 1; got 0"),
        (
            {"published": PublishedOptions(loader=True), "span_rate": 0.0, "causal_rate": 1.0},
            r"objective\.causal_rate must be 0 with objective\.published\.loader; got 1\.0",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**options)


@pytest.mark.parametrize("off", [-0.05, -2e-6, 2e-6, 0.05])
def test_rates_sum_to_1_within_a_millionth(off):
    ObjectiveConfig(span_rate=0.5, document_rate=0.5 + 0.4e-6 * (1 if off > 0 else -1))
    with pytest.raises(UserError, match=r"objective\.span_rate, .* must sum to 1; got "):
        ObjectiveConfig(span_rate=0.5, document_rate=0.5 + off)


def test_a_run_of_before_these_options_reads_as_without_them():
    values = to_dict(Config())
    old = list(dataclasses.asdict(ObjectiveConfig()))[:17]
    assert old[-1] == "causal_weight"
    values["objective"] = {name: values["objective"][name] for name in old}
    assert from_dict(values) == Config()
