import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.messages import (
    calls_of,
    checked_messages,
    checked_tools,
    function_of,
    with_our_roles,
)

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


def test_messages_are_copied_in_one_form():
    given = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": (CALL,), "metadata": None},
        {"role": "tool", "content": "22", "tools": None},
    ]
    found = checked_messages(given)
    assert found == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "22"},
    ]
    found[1]["tool_calls"][0]["function"]["arguments"]["a"] = 2
    assert CALL["function"]["arguments"] == {"a": 1}
    assert [one["role"] for one in with_our_roles(found)] == ["user", "assistant", "observation"]


def test_what_the_model_said_before_comes_in_front():
    before = {"role": "assistant", "content": "one"}
    last = {"role": "assistant", "content": "two", "earlier": [before]}
    assert checked_messages([last]) == [before, {"role": "assistant", "content": "two"}]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "must be a list of dicts"),
        ({"role": "user", "content": "hi"}, "must be a list of dicts"),
        (3, "must be a list of dicts"),
        ([], "got none"),
        (["hi"], r"messages\[0\] must be a dict"),
        ([{"content": "hi"}], r"messages\[0\] must have a role"),
        ([{"role": "user"}], r"messages\[0\]\['content'\] takes text and got None"),
        ([{"role": "user", "content": 3}], "takes text and got 3"),
        ([{"role": "user", "content": "\udcff"}], "not a character but a remnant"),
        ([{"role": "user", "content": "a", "metadata": 1}], "metadata"),
        ([{"role": "user", "content": [{"type": "image"}]}], "text alone in its content"),
        ([{"role": "user", "content": "a", 3: 4}], "texts as its keys"),
        ([{"role": "user", "content": "a", "x": object()}], "must hold what JSON has"),
        ([{"role": "user", "content": "a", "tools": "f"}], "tools must be a list"),
        ([{"role": "user", "content": "a", "earlier": "f"}], "must be a list of messages"),
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], "tool_calls"),
    ],
)
def test_what_is_no_message_is_refused(messages, message):
    with pytest.raises(UserError, match=message):
        checked_messages(messages)


def test_a_message_nested_without_end_is_refused():
    nested = []
    nested.append(nested)
    with pytest.raises(UserError, match="nested deeper than 50"):
        checked_messages([{"role": "user", "content": "a", "x": nested}])


def test_roles_that_no_format_knows_are_refused():
    with pytest.raises(UserError, match=r"messages\[0\] must have a role of .*; got 'developer'"):
        with_our_roles([{"role": "developer", "content": "a"}])


def test_tools():
    function = {"name": "f", "parameters": {}}
    assert checked_tools(None) is None
    assert checked_tools([]) is None
    assert checked_tools(iter([function])) == [function]
    assert function_of({"type": "function", "function": function}) == function
    assert function_of(function) == function
    for tools, message in [("f", "must be a list"), ([1], r"tools\[0\] must be a dict")]:
        with pytest.raises(UserError, match=message):
            checked_tools(tools)
    with pytest.raises(UserError, match=r"tools\[0\] must name its function"):
        checked_tools([{"type": "function", "function": {}}])


def test_calls_may_have_their_arguments_as_json():
    assert calls_of({"tool_calls": [CALL]}) == [("f", {"a": 1})]
    text = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    assert calls_of({"tool_calls": [text]}) == [("f", {"a": 1})]
    with pytest.raises(UserError, match="cannot read the arguments"):
        calls_of({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]})
