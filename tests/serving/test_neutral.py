import pytest
from pydantic_core import PydanticCustomError

from glm_jax.serving.neutral import NEUTRAL_IN_MESSAGES, check_fields


def test_what_asks_for_nothing_passes_and_is_dropped():
    given = {
        "model": "m",
        "frequency_penalty": 0.0,
        "logit_bias": None,
        "response_format": {"type": "text"},
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
    }
    assert check_fields(given, {"model"}) == {"model": "m"}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("frequency_penalty", 0.1, "null or 0"),
        ("presence_penalty", False, "null or 0"),
        ("logit_bias", {"5": 1}, "null or {}"),
        ("response_format", {"type": "json_object"}, 'null or {"type": "text"}'),
        ("store", True, "null or false"),
        ("suffix", "x", 'null or ""'),
        ("reasoning_effort", "high", "null;"),
        ("parallel_tool_calls", False, "null or true"),
    ],
)
def test_what_asks_for_something_is_refused_by_name(name, value, allowed):
    with pytest.raises(PydanticCustomError) as found:
        check_fields({name: value}, {"model"})
    assert str(found.value).startswith(f"{name} is not supported: it must be {allowed}")
    assert found.value.context["param"] == name


def test_a_field_that_nobody_knows_is_refused():
    with pytest.raises(PydanticCustomError, match=r"unknown field 'modle' \(did you mean 'model'"):
        check_fields({"modle": 1}, {"model"})
    with pytest.raises(PydanticCustomError, match="unknown field 'frequency_penalty'"):
        check_fields({"frequency_penalty": 0}, {"role"}, NEUTRAL_IN_MESSAGES, ())


def test_braces_in_a_value_stay_what_they_are():
    with pytest.raises(PydanticCustomError, match=r"got '\{param\}'"):
        check_fields({"suffix": "{param}"}, set())
