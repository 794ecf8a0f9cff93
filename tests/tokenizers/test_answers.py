import pytest

from glm_jax.tokenizers.answers import plain, read_turn
from glm_jax.tokenizers.calls import JSON_CALLS, PYTHON_CALLS


def call(**arguments):
    return [{"type": "function", "function": {"name": "f", "arguments": arguments}}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n yes", {"content": "yes"}),
        ("yes", {"content": "yes"}),
        ("Well\nyes", {"content": "Well\nyes"}),
        ('f\n{"a": 1}', {"content": '{"a": 1}', "metadata": "f", "tool_calls": call(a=1)}),
        ("f\n{a: 1}", {"content": "f\n{a: 1}"}),
        ("f", {"content": "f"}),
        ('f g\n{"a": 1}', {"content": 'f g\n{"a": 1}'}),
        ("interpreter\nprint(1)", {"content": "print(1)", "metadata": "interpreter"}),
        ("<think>f\n{}</think>\n\nyes", {"content": "yes", "reasoning_content": "f\n{}"}),
        ("hm</think>yes", {"content": "yes", "reasoning_content": "hm"}),
        ("<think>hm", {"content": "", "reasoning_content": "hm"}),
        (
            '<think>hm</think>\nf\n{"a": 1}',
            {
                "content": '{"a": 1}',
                "metadata": "f",
                "tool_calls": call(a=1),
                "reasoning_content": "hm",
            },
        ),
    ],
)
def test_an_answer_is_read(text, expected):
    assert read_turn([text], JSON_CALLS, True) == {"role": "assistant", **expected}


def test_without_tools_nothing_is_called():
    message = read_turn(['f\n{"a": 1}'], JSON_CALLS, False)
    assert message == {"role": "assistant", "content": '{"a": 1}', "metadata": "f"}
    text = "f\n ```python\ntool_call(a=1)\n```"
    assert "tool_calls" in read_turn([text], PYTHON_CALLS, True)
    assert read_turn([text], None, True) == {"role": "assistant", "content": text}


def test_several_messages_of_one_answer():
    found = read_turn(["\nlet me see", 'f\n{"a": 1}'], JSON_CALLS, True)
    assert found["earlier"] == [{"role": "assistant", "content": "let me see"}]
    assert found["tool_calls"] == call(a=1)


def test_the_slot_for_a_year_is_filled():
    assert plain(" [[训练时间]]训练 ") == "2023年训练"
