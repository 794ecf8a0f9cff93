import pytest
from pydantic import ValidationError

from glm_jax.serving.blank_protocol import BlanksRequest


@pytest.mark.parametrize(
    "text",
    [
        5,
        None,
        [5],
        [["a"]],
        ["a", {"text": "b"}],
        [{"blank": "X"}],
        [{"text": "a", "blank": "MASK"}],
    ],
)
def test_another_text_is_refused_in_one_sentence(text):
    with pytest.raises(ValidationError, match="text must be a text, or a list of parts") as caught:
        BlanksRequest(text=text)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("order", [1, "some", [[0], 1], [0.0], [True], [["0"]], [None]])
def test_another_order_is_refused_in_one_sentence(order):
    with pytest.raises(ValidationError, match="order must be a list of the numbers") as caught:
        BlanksRequest(text="[MASK]", order=order)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "1"), ("temperature", float("nan")), ("n", 0), ("logprobs", 21), ("x", 1)],
)
def test_fields_are_strict(name, value):
    with pytest.raises(ValidationError, match=name):
        BlanksRequest(text="[MASK]", **{name: value})
