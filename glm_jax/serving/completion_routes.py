"""POST /v1/completions: texts or ids in, what follows them out, at once or in parts."""

import dataclasses
from collections.abc import AsyncIterator, Sequence

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
from glm_jax.serving.pieces import Pieces
from glm_jax.serving.preparing import Preparer, Scores, client_of, now
from glm_jax.serving.protocol import CompletionRequest
from glm_jax.serving.responses import TEXT, Call
from glm_jax.serving.running_rows import Running
from glm_jax.serving.served import Served
from glm_jax.serving.text_logprobs import joined, text_logprobs
from glm_jax.tokenizers.framing import causal_prefix
from glm_jax.tokenizers.ids import check_text

# OpenAI's.
_NEW_TOKENS = 16


def router(served: Served, metrics: Metrics) -> APIRouter:
    """The route of completions."""
    routes, completions = APIRouter(tags=["completions"]), _Completions(served, metrics)

    @routes.post("/v1/completions", summary="Continue texts")
    async def text_completions(body: CompletionRequest, request: Request) -> Response:
        return await answered(request, completions.respond(body, request))

    return routes


@dataclasses.dataclass(frozen=True)
class _Text:
    """A prompt.

    Attributes:
      prompt: as the model is asked.
      framing: number of its ids that stand in front of the text.
      text: of the others.
    """

    prompt: Prompt
    framing: int
    text: str

    @property
    def ids(self) -> Sequence[int]:
        return self.prompt.ids[self.framing :]


@dataclasses.dataclass(frozen=True)
class _Call(Call[CompletionRequest]):
    """A request on its way.

    Attributes:
      texts: the prompt of each answer.
    """

    texts: list[_Text]


class _Completions:
    """Continues texts with one model."""

    def __init__(self, served: Served, metrics: Metrics):
        self._served, self._metrics = served, metrics
        self._preparer = Preparer(served)
        self._known_pieces: Pieces | None = None

    async def respond(self, body: CompletionRequest, request: Request) -> Response:
        """The response to a request; its rows are queued when it returns a stream."""
        start = now()
        self._preparer.check_model(body.model)
        if not self._served.model.config.continues_texts:
            raise bad_request(
                f"{self._served.name!r} fills blanks and does not continue texts: ask /v1/blanks, "
                "with a [MASK] where text is wanted",
                "model",
            )
        n = body.n or 1
        self._preparer.check_rows(len(body.prompt), n)
        texts = await self._preparer.aside(lambda: self._texts(body))
        scores = Scores(body.logprobs, bool(body.echo and body.logprobs is not None))
        asks = self._preparer.asks(
            [text.prompt for text in texts], n, scores, client_of(request), start
        )
        prompt_tokens = sum(len(text.prompt.ids) for text in texts)
        texts = [text for text in texts for _ in range(n)]
        if body.max_tokens == 0 and not scores.echo:
            asks = []  # nothing is to be computed
        answers = [self._answer(body, text) for text in texts]
        clock = self._metrics.clock(len(texts), start)
        running = Running(self._served.decoder, asks, answers, clock)
        call = _Call(TEXT, body, request, self._served.name, running, prompt_tokens, texts)
        return await call.respond(self._parts, self._whole)

    def _texts(self, body: CompletionRequest) -> list[_Text]:
        """The prompts, checked."""
        tokenizer, how = self._preparer.tokenizer, self._preparer.sampling(body)
        found = []
        for given in body.prompt:
            framing = causal_prefix(tokenizer) if isinstance(given, str) else []
            if isinstance(given, str):
                ids = tokenizer.encode(check_text("prompt", given, ""))
            else:
                ids = given
            row = [*framing, *ids]
            # Without an answer one id is decoded, and dropped, to have the prompt's scores.
            wanted = 1 if body.max_tokens == 0 else body.max_tokens
            most = self._preparer.new_tokens(wanted, body.min_tokens or 0, len(row), _NEW_TOKENS)
            prompt = self._preparer.prompt(row, Limits(self._preparer.text_ends, most), how)
            text = given if isinstance(given, str) else tokenizer.decode(ids)
            found.append(_Text(prompt, len(framing), text))
        return found

    def _answer(self, body: CompletionRequest, text: _Text) -> Answer:
        decode = self._preparer.tokenizer.decode
        growing = GrowingText(lambda ids: decode(ids, skip_special=True), text.ids)
        return Answer(growing, body.stop, body.min_tokens or 0)

    async def _whole(self, call: _Call) -> list[JsonObject]:
        texts = await call.running.finish()
        choices = []
        for index, said in enumerate(texts):
            said, tokens, reason = self._ended(call, index, said)
            scored = self._logprobs(call, index, tokens)
            if call.body.echo:
                said = call.texts[index].text + said
                scored = scored and joined(self._echoed(call, index), scored)
            choices.append(_choice(index, said, scored, reason))
        return choices

    async def _parts(self, call: _Call) -> AsyncIterator[JsonObject]:
        body, running = call.body, call.running
        begun: set[int] = set()
        told: set[int] = set()
        async for index, said in self._steps(call):
            if body.echo and index not in begun:
                begun.add(index)
                scored = None if body.logprobs is None else self._echoed(call, index)
                yield _choice(index, call.texts[index].text, scored, None)
            ended = running.answers[index].finish_reason is not None or body.max_tokens == 0
            said, tokens, reason = self._ended(call, index, said)
            if index not in told and (said or ended):
                told |= {index} if ended else set()
                scored = self._logprobs(call, index, tokens)
                yield _choice(index, said, scored, reason)

    async def _steps(self, call: _Call) -> AsyncIterator[tuple[int, str]]:
        """The steps of the rows; of rows that are not computed, one each."""
        if call.body.max_tokens == 0:
            await call.running.finish()
            for index in range(len(call.texts)):
                yield index, ""
            return
        async for step in call.running.steps():
            yield step

    def _ended(self, call: _Call, index: int, said: str) -> tuple[str, list[Token], str | None]:
        """(text, tokens, how it ended) of an answer; of none, if none was asked for."""
        answer = call.running.answers[index]
        if call.body.max_tokens == 0:
            answer.count = 0
            return "", [], "length"
        return said, answer.take_tokens() if said or answer.finish_reason else [], (
            answer.finish_reason
        )  # fmt: skip

    def _logprobs(self, call: _Call, index: int, tokens: list[Token]) -> JsonObject | None:
        """Those of tokens of an answer."""
        if call.body.logprobs is None:
            return None
        before = len(call.texts[index].text) if call.body.echo else 0
        scores = [token.scored for token in tokens]
        return text_logprobs(
            self._pieces,
            [scored.id for scored in scores],
            scores,
            [before + token.at for token in tokens],
        )

    def _echoed(self, call: _Call, index: int) -> JsonObject:
        """Those of a prompt; the first of ids alone has none, as nothing stands in front of it."""
        text, scores = call.texts[index], call.running.echoed[index]
        known = scores[text.framing - 1 :] if text.framing else (None, *scores)
        return text_logprobs(
            self._pieces, text.ids, known, self._pieces.offsets(text.ids, text.text)
        )

    @property
    def _pieces(self) -> Pieces:
        self._known_pieces = self._known_pieces or Pieces(self._preparer.tokenizer)
        return self._known_pieces


def _choice(index: int, text: str, scored: JsonObject | None, reason: str | None) -> JsonObject:
    return {"index": index, "text": text, "logprobs": scored, "finish_reason": reason}
