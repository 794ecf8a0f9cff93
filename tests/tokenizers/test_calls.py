import sys

import pytest

from glm_jax.tokenizers.calls import (
    JSON_CALLS,
    PYTHON_CALLS,
    json_call,
    python_call,
    with_calls_as_text,
)


def fenced(call):
    return f" ```python\n{call}\n```"


def test_arguments_are_read_as_they_are_written():
    arguments = {"city": "北京", "days": 3, "far": -1.5, "list": ["a", None, True], "d": {"x": "'"}}
    for calls in (PYTHON_CALLS, JSON_CALLS):
        assert calls.read(calls.write(arguments)) == arguments
    assert PYTHON_CALLS.write({"a": "x"}) == " ```python\ntool_call(a='x')\n```"
    assert JSON_CALLS.write({"a": "北"}) == '{"a": "北"}'
    assert python_call(fenced("tool_call()")) == {}
    assert python_call("```\ntool_call(\n  a = (1, 2)\n)```\n") == {"a": [1, 2]}


@pytest.mark.parametrize(
    "call",
    [
        "tool_call(a=__import__('os').system('touch /tmp/x'))",
        "tool_call(a=open('x'))",
        "tool_call(a=1 + 1j)",
        "tool_call(a=b'x')",
        "tool_call(a={1, 2})",
        "tool_call(a={1: 2})",
        "tool_call(a=1e999)",
        "tool_call(a=[x for x in y])",
        "tool_call(a=f'{x}')",
        "tool_call(**{'a': 1})",
        "tool_call(*[1])",
        "tool_call('a')",
        "tool_call(a=1, a=2)",
        "other(a=1)",
        "tool_call.other(a=1)",
        "tool_call(a=1); tool_call(a=2)",
        "tool_call(a=1",
        "tool_call(a=" + "(" * 5000 + ")" * 5000 + ")",
        "tool_call(a=" + "-" * 20000 + "1)",
        "tool_call(a=" + "9" * 5000 + ")",
        "x = tool_call(a=1)",
        "\0",
        "",
    ],
)
def test_what_is_more_than_literals_is_no_call(call, tmp_path, monkeypatch):
    def forbidden(event, arguments):
        if armed and event in ("exec", "open", "import", "os.system"):
            raise AssertionError(f"{event} {arguments}")

    armed = False
    sys.addaudithook(forbidden)
    armed = True
    try:
        found = python_call(fenced(call))
    finally:
        armed = False
    assert found is None


def test_what_is_not_fenced_is_no_call():
    for text in ("tool_call(a=1)", "```python\ntool_call(a=1)", "", "x ```\ntool_call()\n```"):
        assert python_call(text) is None
    assert python_call(fenced(f"tool_call(a='{'x' * 200_000}')")) is None


@pytest.mark.parametrize(
    "text", ["", "[1]", "3", "{", '{"a": NaN}', '{"a": 1} x', "[" * 100_000, '{"a": ' * 50_000]
)
def test_what_is_no_json_object_is_no_call(text):
    assert json_call(text) is None


def test_calls_become_messages_of_their_own():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    said = {"role": "assistant", "content": "let me see", "tool_calls": [call, call]}
    written = {"role": "assistant", "content": '{"a": 1}', "metadata": "f"}
    first = {"role": "assistant", "content": "let me see"}
    assert with_calls_as_text([said], JSON_CALLS) == [first, written, written]
    as_it_stands = {**said, "metadata": "f", "content": '{"a":1}'}
    assert with_calls_as_text([as_it_stands], JSON_CALLS) == [as_it_stands]
