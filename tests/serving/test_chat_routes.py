"""The official client talks with a server whose scheduler is a script."""

import json

import openai
import pytest

from glm_jax.serving.served import RequestLimits
from tests.serving.fakes import BOT, Bytes, FakeDecoder, FakeModel, client, served, until

USER = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
# What the model says to the last message of the user.
SAID = {
    "hi": "你好 there",
    "call": 'get_weather\n{"city": "北京"}',
    "two": b"First.%sThen.",
    "think": "<think>hm</think>yes",
    "one": "one two three",
    "long": "x" * 3000,
}


def script(ask):
    text = Bytes().decode([id_ for id_ in ask.prompt.ids if id_ < 256]).strip()
    if text == "two":
        return [*b"First.", BOT, *b"Then."]
    return SAID.get(text, text)


@pytest.fixture(scope="module")
def decoder():
    return FakeDecoder(script)


@pytest.fixture(scope="module")
def api(decoder):
    limits = RequestLimits(rows=8)
    with served(decoder, limits=limits) as address:
        yield client(address)


def ask(api, content="hi", **options):
    messages = [{"role": "user", "content": content}]
    return api.chat.completions.create(model="m", messages=messages, **options)


def parts(stream):
    """The chunks of a stream, and the text of each answer."""
    chunks = list(stream)
    texts = {}
    for choice in (one for chunk in chunks for one in chunk.choices):
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return chunks, texts


def test_an_answer_has_openai_s_form(api):
    found = ask(api)
    assert found.object == "chat.completion"
    assert found.id.startswith("chatcmpl-")
    assert found.model == "m"
    (choice,) = found.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", "你好 there")
    assert choice.message.tool_calls is None
    # [gMASK] sop <user> h i <assistant>; 12 bytes and the end id; the fake says it knew two.
    used = found.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (6, 13, 19)
    assert used.prompt_tokens_details.cached_tokens == 2


def test_a_stream_says_the_role_first_and_its_reason_last(api):
    chunks, texts = parts(ask(api, stream=True, stream_options={"include_usage": True}))
    first, *middle, last, used = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert texts == {0: "你好 there"}
    assert all("\N{REPLACEMENT CHARACTER}" not in one.choices[0].delta.content for one in middle)
    assert all(one.choices[0].finish_reason is None for one in (first, *middle))
    assert last.choices[0].finish_reason == "stop"
    assert used.choices == []
    assert used.usage.completion_tokens == 13
    assert {chunk.id for chunk in chunks} == {first.id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_usage_comes_only_where_it_is_asked_for(api):
    chunks, _ = parts(ask(api, stream=True))
    assert all(chunk.choices for chunk in chunks)


def test_a_call_has_openai_s_form_and_streams(api):
    found = ask(api, "call", tools=TOOLS).choices[0]
    assert (found.finish_reason, found.message.content) == ("tool_calls", None)
    (call,) = found.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "北京"}
    with api.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "call"}], tools=TOOLS
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    (streamed,) = final.message.tool_calls
    assert streamed.function.name == "get_weather"
    assert streamed.function.arguments == call.function.arguments
    assert streamed.id.startswith("call_")


def test_a_call_that_the_length_cuts_off_is_text(api):
    found = ask(api, "call", tools=TOOLS, max_tokens=15).choices[0]
    assert (found.finish_reason, found.message.tool_calls) == ("length", None)
    assert found.message.content == 'get_weather\n{"c'


def test_without_tools_or_with_none_allowed_nothing_is_called(api):
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        found = ask(api, "call", **options).choices[0]
        assert (found.finish_reason, found.message.tool_calls) == ("stop", None)


def test_results_of_tools_are_taken(api, decoder):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "22"},
    ]
    assert api.chat.completions.create(model="m", messages=messages).choices


def test_thoughts_and_messages_of_its_own(api):
    message = ask(api, "think").choices[0].message
    assert (message.content, message.reasoning_content) == ("yes", "hm")
    chunks, texts = parts(ask(api, "think", stream=True))
    thoughts = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks]
    assert ("".join(thoughts), texts) == ("hm", {0: "yes"})
    assert ask(api, "two").choices[0].message.content == "First.\nThen."
    assert parts(ask(api, "two", stream=True))[1] == {0: "First.\nThen."}


@pytest.mark.parametrize(
    ("stop", "expected"), [(" two", "one"), (["xx", "o th"], "one tw"), ("zz", "one two three")]
)
def test_a_stop_string_ends_the_answer(api, stop, expected):
    found = ask(api, "one", stop=stop).choices[0]
    assert (found.message.content, found.finish_reason) == (expected, "stop")
    assert parts(ask(api, "one", stop=stop, stream=True))[1] == {0: expected}


def test_a_stop_string_frees_the_slot(api, decoder):
    before = decoder.counts().ended.get("cancelled", 0)
    assert ask(api, "long", stop="xxx").usage.completion_tokens == 3
    assert until(lambda: decoder.counts().ended.get("cancelled", 0) > before)


def test_several_answers_are_drawn_apart(api, decoder):
    found = ask(api, n=3, seed=5, temperature=1.0, max_tokens=4)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in found.choices} == {"length"}
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (6, 12)
    rows = decoder.asked[-3:]
    assert [row.copy for row in rows] == [0, 1, 2]
    assert {row.prompt.how.seed for row in rows} == {5}
    chunks, texts = parts(ask(api, n=2, stream=True))
    assert texts == {0: "你好 there", 1: "你好 there"}
    assert sum(c.choices[0].finish_reason == "stop" for c in chunks) == 2


def test_log_probabilities_of_an_answer(api):
    found = ask(api, "one", logprobs=True, top_logprobs=2, max_tokens=3).choices[0].logprobs
    assert [token.token for token in found.content] == ["o", "n", "e"]
    first = found.content[0]
    assert (first.logprob, first.bytes) == (-0.111, [111])
    assert [(one.token, one.logprob) for one in first.top_logprobs] == [
        ("a", -0.097),
        ("b", -0.098),
    ]
    chunks, _ = parts(ask(api, "one", logprobs=True, stream=True))
    tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert "".join(token.token for token in tokens) == "one two three"
    assert tokens[0].top_logprobs == []


def test_options_reach_the_model(api, decoder):
    extra = {"top_k": 7, "repetition_penalty": 1.2, "min_tokens": 3}
    ask(api, temperature=0.5, top_p=0.9, seed=11, max_completion_tokens=9, extra_body=extra)
    prompt = decoder.asked[-1].prompt
    how = prompt.how
    assert (how.temperature, how.top_p, how.top_k, how.seed) == (0.5, 0.9, 7, 11)
    assert (how.repetition_penalty, how.min_new_tokens) == (1.2, 3)
    assert (prompt.limits.max_new_tokens, prompt.limits.end_ids) == (9, [259 - 1])
    ask(api)
    assert decoder.asked[-1].prompt.limits.max_new_tokens == decoder.context - 6


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"max_tokens": 5000}, "max_tokens", "context_length_exceeded"),
        ({"frequency_penalty": 1}, "frequency_penalty", None),
        ({"n": 9}, "n", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"extra_body": {"foo": 1}}, "foo", None),
        ({"response_format": {"type": "json_object"}}, "response_format", None),
    ],
)
def test_what_cannot_be_is_refused_by_name(api, options, param, code):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as found:
            ask(api, stream=stream, **options)
        assert (found.value.param, found.value.code) == (param, code)


def test_too_long_a_prompt_is_refused(api):
    with pytest.raises(openai.BadRequestError) as found:
        ask(api, "a" * 5000)
    assert found.value.code == "context_length_exceeded"


def test_an_unknown_model_is_not_found(api):
    with pytest.raises(openai.NotFoundError) as found:
        api.chat.completions.create(model="gpt-5", messages=USER)
    assert found.value.code == "model_not_found"


def test_a_row_that_fails_is_a_server_error(caplog):
    with served(FakeDecoder(lambda ask: [*b"ab", "fail"])) as address:
        with pytest.raises(openai.InternalServerError):
            ask(client(address))
        with pytest.raises(openai.APIError, match="failed while") as found:
            list(ask(client(address), stream=True))
        assert found.value.code == "internal_error"


def test_a_deadline_ends_an_answer_with_what_there_is():
    decoder = FakeDecoder(lambda ask: "x" * 3000, delay=0.01)
    with served(decoder, limits=RequestLimits(seconds=0.2)) as address:
        found = ask(client(address)).choices[0]
    assert found.finish_reason == "length"
    assert 0 < len(found.message.content) < 100


def test_a_model_without_a_chat_format_says_so():
    model = FakeModel()
    model.tokenizer.chat_fingerprint = ""
    with (
        served(FakeDecoder(script), model) as address,
        pytest.raises(openai.BadRequestError, match="has no chat format"),
    ):
        ask(client(address))
