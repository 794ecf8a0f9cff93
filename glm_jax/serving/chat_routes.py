"""POST /v1/chat/completions: messages in, an answer out, at once or in parts."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import Response

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.streaming import GrowingText
from glm_jax.json_files import JsonObject
from glm_jax.serving.answers import Answer, Token
from glm_jax.serving.connected import answered
from glm_jax.serving.errors import bad_request
from glm_jax.serving.metrics import Metrics
from glm_jax.serving.pieces import Pieces, in_json
from glm_jax.serving.preparing import Preparer, Scores, client_of, now
from glm_jax.serving.protocol import ChatRequest
from glm_jax.serving.replies import Delta, Read, Reply, whole
from glm_jax.serving.responses import CHAT, Call
from glm_jax.serving.running_rows import Running
from glm_jax.serving.served import Served
from glm_jax.tokenizers.ids import check_text


def router(served: Served, metrics: Metrics) -> APIRouter:
    """The route of chats."""
    routes, chats = APIRouter(tags=["chat"]), _Chats(served, metrics)

    @routes.post("/v1/chat/completions", summary="Answer the messages of a chat")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await answered(request, chats.respond(body, request))

    return routes


class _Chats:
    """Answers chats of one model."""

    def __init__(self, served: Served, metrics: Metrics):
        self._served, self._metrics = served, metrics
        self._preparer = Preparer(served)
        self._pieces: Pieces | None = None

    async def respond(self, body: ChatRequest, request: Request) -> Response:
        """The response to a request; its rows are queued when it returns a stream."""
        start = now()
        self._preparer.check_model(body.model)
        n = body.n or 1
        self._preparer.check_rows(1, n)
        prompt = await self._preparer.aside(lambda: self._prompt(body))
        scores = Scores((body.top_logprobs or 0) if body.logprobs else None)
        asks = self._preparer.asks([prompt], n, scores, client_of(request), start)
        decode = self._preparer.tokenizer.decode
        answers = [Answer(GrowingText(decode), body.stop, body.min_tokens or 0) for _ in asks]
        clock = self._metrics.clock(n, start)
        running = Running(self._served.decoder, asks, answers, clock)
        call = Call(CHAT, body, request, self._served.name, running, len(prompt.ids))
        return await call.respond(self._parts, self._whole)

    def _prompt(self, body: ChatRequest) -> Prompt:
        """The ids to which an answer is the continuation."""
        tokenizer, model = self._preparer.tokenizer, self._served.model
        if not self._preparer.chats:
            raise bad_request(
                f"{self._served.name!r} has no chat format; /v1/models says what it can do",
                "model",
            )
        how = self._preparer.sampling(body)
        messages = [message.as_dict() for message in body.messages]
        ids = tokenizer.apply_chat_template(messages, tools=_tools(body))
        assert not isinstance(ids, str)  # which it is with tokenize=False
        wanted = body.max_completion_tokens or body.max_tokens
        most = self._preparer.new_tokens(wanted, body.min_tokens or 0, len(ids), None)
        return self._preparer.prompt(ids, Limits(model.chat_end_ids, most), how)

    async def _whole(self, call: Call[ChatRequest]) -> list[JsonObject]:
        texts = await call.running.finish()
        choices = []
        for index, (text, answer) in enumerate(zip(texts, call.running.answers, strict=True)):
            message = whole(text, self._reader(call.body))
            reason = _reason(answer, bool(message.get("tool_calls")))
            choices.append(
                {
                    "index": index,
                    "message": {**message, "refusal": None},
                    "logprobs": self._logprobs(call.body, answer.take_tokens()),
                    "finish_reason": reason,
                }
            )
        return choices

    async def _parts(self, call: Call[ChatRequest]) -> AsyncIterator[JsonObject]:
        body, running = call.body, call.running
        replies = [Reply(self._reader(body), _tools(body) is not None) for _ in running.answers]
        told: set[int] = set()
        for index in range(len(replies)):
            yield _part(index, {"role": "assistant", "content": ""})
        async for index, said in running.steps():
            reply, answer = replies[index], running.answers[index]
            deltas = reply.push(said)
            if ended := answer.finish_reason is not None and index not in told:
                told.add(index)
                deltas += reply.finish()
            scored = self._logprobs(body, answer.take_tokens()) if deltas or ended else None
            for delta in deltas:
                yield _part(index, delta, scored)
                scored = None
            if ended:
                reason = _reason(answer, reply.calls > 0)
                yield _part(index, {}, scored, reason)

    def _reader(self, body: ChatRequest) -> Read:
        tools = _tools(body)
        return lambda text: self._preparer.tokenizer.read_answer(text, tools=tools)

    def _logprobs(self, body: ChatRequest, tokens: list[Token]) -> JsonObject | None:
        if not body.logprobs:
            return None
        self._pieces = pieces = self._pieces or Pieces(self._preparer.tokenizer)
        return {
            "content": [_scored(pieces, token) for token in tokens if not token.ends],
            "refusal": None,
        }


def _tools(body: ChatRequest) -> list[JsonObject] | None:
    """The functions that the model is told of; with tool_choice "none" it is told of none."""
    if not body.tools or body.tool_choice == "none":
        return None
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    for index, tool in enumerate(tools):
        check_text(f"tools[{index}]", tool["function"]["name"], "it is the name of a function")
    return tools


def _part(
    index: int,
    delta: Delta,
    scored: JsonObject | None = None,
    reason: str | None = None,
) -> JsonObject:
    return {"index": index, "delta": delta, "logprobs": scored, "finish_reason": reason}


def _reason(answer: Answer, calls: bool) -> str | None:
    """A call that the length cuts off is none that could be read."""
    return "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason


def _scored(pieces: Pieces, token: Token) -> JsonObject:
    """A token of an answer, and those that might stand in its place, as OpenAI has them."""
    scored = token.scored
    others = [_token(pieces, id_, value) for id_, value in scored.alternatives]
    return {**_token(pieces, scored.id, scored.log_probability), "top_logprobs": others}


def _token(pieces: Pieces, id_: int, log_probability: float) -> JsonObject:
    text = pieces.text(id_)
    # Bytes that are no character have none that this tokenizer tells.
    known = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": in_json(log_probability), "bytes": known}
