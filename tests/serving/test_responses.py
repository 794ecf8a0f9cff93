import asyncio
import json

import pytest
from fastapi import Request

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.streaming import GrowingText
from glm_jax.serving.answers import Answer
from glm_jax.serving.asking import Ask
from glm_jax.serving.metrics import Metrics
from glm_jax.serving.protocol import ChatRequest, CompletionRequest
from glm_jax.serving.responses import CHAT, TEXT, Call
from glm_jax.serving.running_rows import Running
from tests.serving.fakes import Bytes, FakeDecoder

CHATTING = {"messages": [{"role": "user", "content": "hi"}]}


async def whole(call):
    return [
        {"index": index, "text": text} for index, text in enumerate(await call.running.finish())
    ]


async def parts(call):
    async for index, said in call.running.steps():
        if said:
            yield {"index": index, "text": said}


def responded(kind, body):
    """The response to a request whose row says "ab", and what the log is told."""

    async def main():
        decoder, request = FakeDecoder(lambda ask: "ab"), Request({"type": "http", "state": {}})
        ask = Ask(Prompt([7, 8, 9], Limits([Bytes.special.eos], 5), Sampling()))
        answers = [Answer(GrowingText(Bytes().decode))]
        running = Running(decoder, [ask], answers, Metrics(decoder).clock(1, 0.0))
        response = await Call(kind, body, request, "m", running, 3).respond(parts, whole)
        lines = []

        async def send(message):
            lines.append(message.get("body", b""))

        await response(request.scope, asyncio.Event().wait, send)
        decoder.close()
        return [line for line in lines if line], request.state.tokens

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "body", "prefix", "called"),
    [
        (CHAT, ChatRequest(**CHATTING), "chatcmpl-", "chat.completion"),
        (TEXT, CompletionRequest(prompt="x"), "cmpl-", "text_completion"),
    ],
)
def test_a_response_at_once(kind, body, prefix, called):
    (line,), tokens = responded(kind, body)
    found = json.loads(line)
    assert found["id"].startswith(prefix)
    assert (found["object"], found["model"]) == (called, "m")
    assert found["choices"] == [{"index": 0, "text": "ab"}]
    # Two bytes and the end id.
    assert tokens == (3, 3)
    assert found["usage"]["total_tokens"] == 6
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize(
    ("kind", "made", "called"),
    [(CHAT, ChatRequest, "chat.completion.chunk"), (TEXT, CompletionRequest, "text_completion")],
)
def test_a_response_in_parts(kind, made, called, usage):
    body = made(
        **(CHATTING if made is ChatRequest else {"prompt": "x"}),
        stream=True,
        stream_options={"include_usage": True} if usage else None,
    )
    (*lines, done), tokens = responded(kind, body)
    assert done == b"data: [DONE]\n\n"
    found = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert len({one["id"] for one in found}) == len({one["created"] for one in found}) == 1
    assert {one["object"] for one in found} == {called}
    said = [choice["text"] for one in found for choice in one["choices"]]
    assert "".join(said) == "ab"
    assert tokens == (3, 3)
    last = found[-1]
    assert (last["choices"] == []) == usage
    assert ("usage" in last) == usage
    assert all("usage" not in one for one in found[:-1])
