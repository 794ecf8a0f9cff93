"""Each format of conversations as messages, and what is no conversation."""

import json

import pytest

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.conversations import check_turns, read_dialogue
from glm_jax.errors import UserError

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
CALLED = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "22"},
    ANSWER,
]


def read(record, format="auto", **options):
    return read_dialogue(record, ExamplesConfig(format=format, **options))


def test_prompt_and_response():
    record = {"prompt": "hi", "response": "yes", "id": 3}
    assert read(record).messages == [USER, ANSWER]
    assert read(record, "prompt_response").messages == [USER, ANSWER]
    again = read(record | {"history": [["q", "a"]]}).messages
    assert [one["content"] for one in again] == ["q", "a", "hi", "yes"]
    assert read(record | {"history": None}).messages == [USER, ANSWER]
    named = {"content": "hi", "summary": "yes", "past": []}
    options = {"prompt_field": "content", "response_field": "summary", "history_field": "past"}
    assert read(named, **options).messages == [USER, ANSWER]


def test_messages_of_three_origins():
    for record, format in (
        ({"messages": [USER, ANSWER]}, "messages"),
        ({"conversations": [USER, ANSWER]}, "chatglm3"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
         "sharegpt"),
    ):  # fmt: skip
        assert read(record).messages == read(record, format).messages == [USER, ANSWER]
        # The same conversation is held out whatever file it stands in.
        assert read(record).content == read({"prompt": "hi", "response": "yes"}).content
    assert read({"talk": [USER, ANSWER]}, messages_field="talk").messages == [USER, ANSWER]


def test_tools_and_calls():
    found = read({"messages": CALLED, "tools": [TOOL]})
    assert [one["role"] for one in found.messages] == [
        "user",
        "assistant",
        "observation",
        "assistant",
    ]
    assert found.messages[1]["tool_calls"] == [CALL]
    assert found.tools == [TOOL]
    assert read({"messages": CALLED, "tools": json.dumps([TOOL])}).tools == [TOOL]
    assert read({"messages": CALLED, "tools": ""}).tools is None
    glm4 = [{"role": "system", "content": "", "tools": [TOOL]}, *CALLED]
    assert read({"messages": glm4}).messages[0]["tools"] == [TOOL]
    shared = {
        "system": "be brief",
        "conversations": [
            {"from": "human", "value": "hi"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": "22"},
            {"from": "gpt", "value": "yes"},
        ],
        "tools": json.dumps([TOOL["function"]]),
    }
    found = read(shared)
    assert found.messages[0] == {"role": "system", "content": "be brief"}
    assert found.messages[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert found.tools == [TOOL["function"]]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "hi", "answer": "yes"}, "looks for 'prompt' and 'response', .*columns are"),
        ({"messages": "hi"}, "'messages' must be a list of messages"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, r"messages\[0\]\['content'\]"),
        ({"messages": [USER, USER, ANSWER]}, r"roles are out of order: messages\[1\] is of 'user'"),
        ({"messages": [ANSWER, USER]}, r"messages\[0\] is of 'assistant', and at the beg"),
        ({"messages": [USER]}, "no message is the assistant's"),
        ({"messages": [USER, ANSWER, USER]}, "the last message must be the assistant's"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "must have a role of"),
        ({"messages": []}, "one message at least"),
        ({"messages": [USER, ANSWER], "tools": "[{"}, "'tools' is a text, and not JSON"),
        ({"messages": [USER, ANSWER], "tools": {"a": 1}}, "must be a list of descriptions"),
        ({"messages": [USER, ANSWER], "tools": [{"a": 1}]}, r"tools\[0\] must name its function"),
        (
            {"messages": [USER, ANSWER], "tools": [{"name": "f", "parameters": {"type": "text"}}]},
            r"the parameters of tools\[0\] must be a JSON schema: 'text' is not valid",
        ),
        (
            {"messages": [USER, ANSWER], "tools": [{"name": "f", "parameters": ["city"]}]},
            r"the parameters of tools\[0\] must be a JSON schema; got",
        ),
        (
            {"messages": [
                {"role": "system", "content": "", "tools": [
                    {"name": "f", "parameters": {"required": "a"}}]}, USER, ANSWER]},
            r"messages\[0\]\['tools'\]\[0\] must be a JSON schema",
        ),
        ({"conversations": [{"from": "human", "value": 3}, {"from": "gpt", "value": "x"}]},
         "content"),
        ({"conversations": [{"from": "me", "value": "hi"}]}, "'from' must be one of"),
        ({"conversations": [{"from": "human"}]}, "must have 'from' and 'value'"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call",
         "value": "get()"}]}, "the function_call"),
        ({"prompt": "hi", "response": None}, "'response' must be a text; got None"),
        ({"prompt": "hi", "response": "a", "history": "b"}, "'history' must be a list of"),
    ],
)  # fmt: skip
def test_what_is_no_conversation(record, message):
    with pytest.raises(UserError, match=message):
        read(record)


def test_an_unknown_column_is_named_with_those_there_are():
    with pytest.raises(UserError) as caught:
        read({"prompts": "hi", "response": "yes"}, "prompt_response")
    assert str(caught.value) == (
        "there is no column 'prompt' (examples.prompt_field); the columns are prompts, response "
        "(did you mean 'prompts'?)"
    )
    with pytest.raises(UserError, match=r"no column 'past' \(examples\.history_field\)"):
        read({"prompt": "hi", "response": "yes"}, history_field="past")


def test_turns():
    check_turns([{"role": role} for role in ("system", "system", "user", "assistant", "assistant")])
