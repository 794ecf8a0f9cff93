"""The golden prompts are checked with their tokenizers; here is what they leave open."""

import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers import chat_formats
from glm_jax.tokenizers.chat_formats import Chat, Token, split_thoughts
from tests.tokenizers.golden_chat import WEATHER, user

HISTORY = [*user("hi"), {"role": "assistant", "content": "hello"}]
START = [Token("[gMASK]"), Token("<sop>")]


def text(prompt):
    return "".join(part if isinstance(part, str) else part.spelling for part in prompt)


def test_rounds_that_are_over():
    assert chat_formats.chatglm(Chat(HISTORY, None, False)) == ["[Round 0]\n问：hi\n答：hello\n"]
    assert chat_formats.chatglm2(Chat(HISTORY, None, False))[2:] == [
        "[Round 1]\n\n问：hi\n\n答：hello\n\n"
    ]


@pytest.mark.parametrize("write", [chat_formats.chatglm, chat_formats.chatglm2])
@pytest.mark.parametrize(
    ("messages", "tools", "message"),
    [
        ([{"role": "system", "content": "a"}], None, r"messages\[0\] must be of 'user', got 'sys"),
        (user("a") * 2, None, r"messages\[1\] must be of 'assistant', got 'user'"),
        (HISTORY, None, "the last message of a prompt of ChatGLM.* must be of 'user'"),
        (user("a"), [WEATHER], "has no format for tools"),
        ([{**user("a")[0], "tools": [WEATHER]}], None, "has no format for tools"),
    ],
)
def test_what_does_not_fit_in_rounds(write, messages, tools, message):
    with pytest.raises(UserError, match=message):
        write(Chat(messages, tools, True))


def test_tools_of_chatglm3_as_an_argument():
    on_message = [{"role": "system", "content": "be brief", "tools": [WEATHER]}, *user("hi")]
    tools = [{"type": "function", "function": WEATHER}]
    system = [{"role": "system", "content": "be brief"}, *user("hi")]
    written = chat_formats.chatglm3(Chat(on_message, None, True))
    assert chat_formats.chatglm3(Chat(system, tools, True)) == written
    alone = chat_formats.chatglm3(Chat(user("hi"), tools, True))
    assert alone[2:5] == [Token("<|system|>"), "\n", written[4].replace(
        "be brief", "Answer the following questions as best as you can. You have access to the "
        "following tools:")]  # fmt: skip
    with pytest.raises(UserError, match="not both"):
        chat_formats.chatglm3(Chat(on_message, tools, True))
    with pytest.raises(UserError, match="on a system message alone"):
        chat_formats.chatglm3(Chat([{**user("a")[0], "tools": [WEATHER]}], None, True))


def test_tools_of_glm4_as_an_argument():
    on_message = [{"role": "system", "content": "", "tools": [WEATHER]}, *user("hi")]
    written = chat_formats.glm4(Chat(on_message, None, True))
    assert chat_formats.glm4(Chat(user("hi"), [WEATHER], True)) == written
    with pytest.raises(UserError, match="type 'function' alone; got 'cogview'"):
        chat_formats.glm4(Chat(user("hi"), [{"type": "cogview"}], True))


def test_thoughts_are_not_told_again():
    said = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"}
    prompt = chat_formats.glm4_0414(Chat([*user("hi"), said, *user("bye")], None, True))
    assert text(prompt) == (
        "[gMASK]<sop><|user|>\nhi<|assistant|>\nhello<|user|>\nbye<|assistant|>"
    )


def test_results_of_tools_by_the_other_word():
    prompt = chat_formats.glm4_0414(Chat([{"role": "tool", "content": "22"}], None, False))
    assert prompt == [*START, Token("<|observation|>"), "\n22"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", ("yes", None)),
        ("<think>hm</think>yes", ("yes", "hm")),
        ("\n<think>\nhm\n</think>\n\nyes</think>", ("yes</think>", "hm")),
        ("hm</think>yes", ("yes", "hm")),
        ("<think>hm", ("", "hm")),
        ("a <think>", ("a <think>", None)),
    ],
)
def test_thoughts(answer, expected):
    assert split_thoughts(answer) == expected
