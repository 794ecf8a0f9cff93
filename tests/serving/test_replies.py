import json
import random

import pytest

from glm_jax.serving.replies import Reply, whole
from tests.serving.fakes import Bytes

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
CALL = 'get_weather\n{"city": "北京"}'


def reader(tools=None):
    return lambda text: Bytes().read_answer(text, tools)


def joined(parts, tools=None):
    """The deltas of an answer in parts, as a client puts them together."""
    reply = Reply(reader(tools), tools is not None)
    found = {}
    for delta in [one for part in parts for one in reply.push(part)] + reply.finish():
        for name, value in delta.items():
            if name != "tool_calls":
                found[name] = value if name == "metadata" else found.get(name, "") + value
                continue
            (call,) = value
            calls = found.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append({**call["function"], "id": call["id"], "type": call["type"]})
            else:
                calls[call["index"]]["arguments"] += call["function"]["arguments"]
    return found


def test_text_streams_as_it_comes():
    reply = Reply(reader(), False)
    assert reply.push("你好 ") == [{"content": "你好"}]
    assert reply.push("there") == [{"content": " there"}]
    assert reply.finish() == []


def test_a_call_comes_when_it_is_known():
    reply = Reply(reader(TOOLS), True)
    assert [delta for letter in CALL for delta in reply.push(letter)] == []
    name, arguments = reply.finish()
    call = name["tool_calls"][0]
    assert call["id"].startswith("call_")
    assert (call["index"], call["type"]) == (0, "function")
    assert call["function"] == {"name": "get_weather", "arguments": ""}
    expected = {"index": 0, "function": {"arguments": '{"city": "北京"}'}}
    assert arguments == {"tool_calls": [expected]}
    assert reply.calls == 1


def test_the_whole_message_has_openai_s_form():
    message = whole(CALL, reader(TOOLS))
    (call,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": None}
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "北京"}'}
    assert whole("", reader()) == {"role": "assistant", "content": ""}
    assert whole("<think>hm</think>\n\nyes", reader()) == {
        "role": "assistant",
        "content": "yes",
        "reasoning_content": "hm",
    }


def test_without_tools_a_call_is_text():
    assert whole(CALL, reader()) == {
        "role": "assistant",
        "content": '{"city": "北京"}',
        "metadata": "get_weather",
    }


ANSWERS = [
    "",
    "Yes",
    "Yes\n",
    "Yes\nIt is: {1, 2}",
    "Sure\n{not json",
    "ok, 好! 是:",
    CALL,
    CALL + " and more",
    "Let me see.<|assistant|>" + CALL,
    "One.<|assistant|>Two.<|assistant|>Three.",
    CALL + '<|assistant|>g\n{"x": [1, {"y": 2}]}',
    "<think>first\n\nthen </b></think>\n\nThe answer <b>.",
    "<think>cut off",
    "a < b <think and [[训练时",
    "今年是[[训练时间]]。",
    "python\nprint(1)\n",
    "  spaces  ",
]


@pytest.mark.parametrize("text", ANSWERS)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_parts_joined_are_the_whole(text, tools):
    """However the text is cut."""
    expected = whole(text, reader(tools))
    expected.pop("role")
    draws = random.Random(0)
    ways = [list(text), [text], [text[:5], text[5:]]]
    for _ in range(5):
        cuts = sorted(draws.choices(range(len(text) + 1), k=3))
        ways.append([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)])
    for parts in ways:
        found = joined(parts, tools)
        for one, other in zip(
            found.get("tool_calls", []), expected.get("tool_calls", []), strict=True
        ):
            assert (one["name"], one["arguments"]) == tuple(other["function"].values())
            assert json.loads(one["arguments"]) is not None
        assert (found.get("content") or "") == (expected["content"] or "")
        for name in ("reasoning_content", "metadata"):
            assert found.get(name) == expected.get(name)


def test_thoughts_stream_too():
    reply = Reply(reader(), False)
    assert reply.push("<thi") == []
    assert reply.push("nk>I s") == [{"reasoning_content": "I s"}]
    assert reply.push("ee</thi") == [{"reasoning_content": "ee"}]
    assert reply.push("nk>Yes it") == [{"content": "Yes it"}]


def test_signs_that_become_full_width_wait():
    """ChatGLM-6B's: "你好," is "你好，" before a Chinese character."""

    def read(text):
        return {"role": "assistant", "content": text.strip().replace(",好", "，好")}

    reply = Reply(read, False)
    assert reply.push("ok,") == [{"content": "ok"}]
    assert reply.push("好") == [{"content": "，好"}]
