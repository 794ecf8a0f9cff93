"""What answers to chats and to texts have in common: how a request becomes a response.

rows  ->  choices            {"id": .., "choices": [..], "usage": {..}}
rows  ->  choices, in parts  data: {"id": .., "choices": [..]} ..     the last one with "usage"
"""

import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, Self, TypeVar

from fastapi import Request
from starlette.responses import JSONResponse, Response

from glm_jax.json_files import JsonObject
from glm_jax.serving.connected import EventStream
from glm_jax.serving.protocol import ChatRequest, CompletionRequest
from glm_jax.serving.running_rows import Running, usage
from glm_jax.serving.sse import events

Body = TypeVar("Body", ChatRequest, CompletionRequest)


class Kind(NamedTuple):
    """OpenAI's words for a response.

    Attributes:
      prefix: of its id.
      whole, chunk: what it is at once, and what each of its parts is.
    """

    prefix: str
    whole: str
    chunk: str


CHAT = Kind("chatcmpl", "chat.completion", "chat.completion.chunk")
TEXT = Kind("cmpl", "text_completion", "text_completion")


@dataclasses.dataclass(frozen=True)
class Call(Generic[Body]):
    """A request on its way.

    Attributes:
      kind: of its response.
      body: it.
      request: whose state is told the number of tokens, for the log.
      model: its name in the response.
      running: the rows.
      prompt_tokens: of all prompts, each counted once.
    """

    kind: Kind
    body: Body
    request: Request
    model: str
    running: Running
    prompt_tokens: int

    async def respond(
        self,
        parts: Callable[[Self], AsyncIterator[JsonObject]],
        whole: Callable[[Self], Awaitable[list[JsonObject]]],
    ) -> Response:
        """The response; a stream is returned before its first part is there.

        Args:
          parts: the choices of a stream, one a chunk.
          whole: all choices, once the rows have ended.
        """
        head = {
            "id": f"{self.kind.prefix}-{secrets.token_hex(12)}",
            "object": self.kind.chunk if self.body.stream else self.kind.whole,
            "created": int(time.time()),
            "model": self.model,
        }
        if self.body.stream:
            return EventStream(events(self._chunks(head, parts(self))), self.running.close)
        choices = await whole(self)
        return JSONResponse(head | {"choices": choices, "usage": self._usage()})

    async def _chunks(
        self, head: JsonObject, choices: AsyncIterator[JsonObject]
    ) -> AsyncIterator[JsonObject]:
        async for choice in choices:
            yield head | {"choices": [choice]}
        used, options = self._usage(), self.body.stream_options
        if options is not None and options.include_usage:
            yield head | {"choices": [], "usage": used}

    def _usage(self) -> JsonObject:
        used = usage(self.prompt_tokens, self.running.answers)
        self.request.state.tokens = (used["prompt_tokens"], used["completion_tokens"])
        return used
