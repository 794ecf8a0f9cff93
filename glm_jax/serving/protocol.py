"""The requests of OpenAI's protocol, as pydantic models: they are checked, and /docs shows them.

Types are strict: "max_tokens": "5" is refused. What is out of range by itself is refused here; what
the model decides, where the request is prepared.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from glm_jax.checks import LARGEST_INT, LARGEST_SEED
from glm_jax.json_files import JsonObject
from glm_jax.serving.asking import MOST_ALTERNATIVES
from glm_jax.serving.neutral import NEUTRAL_IN_MESSAGES, check_fields, refused

MOST_STOPS = 4
# Of a stop string, in characters: each new token is compared with it.
LONGEST_STOP = 500
# OpenAI's limit for /v1/completions.
MOST_LOGPROBS = 5

Count = Annotated[int, Field(ge=1, le=LARGEST_INT)]


class Strict(BaseModel):
    """An object whose fields are all known, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _stops(value: object) -> list[str]:
    given = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise refused("stop", "stop must be a text or a list of texts")
    if len(given) > MOST_STOPS:
        raise refused("stop", f"stop must have at most {MOST_STOPS} texts; got {len(given)}")
    if any(not 1 <= len(one) <= LONGEST_STOP for one in given):
        raise refused("stop", f"texts of stop must have 1 to {LONGEST_STOP} characters")
    return given


_STOP_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "maxItems": MOST_STOPS},
        {"type": "null"},
    ]
}


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Decoding(Strict):
    """What requests for chats and for completions have in common.

    Attributes:
      model: its name; None: the one that there is.
      max_tokens: of an answer.
      temperature, top_p, top_k: None: what the checkpoint suggests, else greedy.
      n: number of answers to each prompt.
      seed: None: a random one.
      stop: texts that end an answer, and are not part of it.
      stream: send parts of the answer as they come.
      repetition_penalty, min_tokens: as of vLLM; `Sampling` has them.
      user: of the client's own books.
    """

    model: Annotated[str, Field(max_length=500)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=LARGEST_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=LARGEST_INT)] | None = None
    n: Count | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    stop: Annotated[list[str], BeforeValidator(_stops), WithJsonSchema(_STOP_SCHEMA)] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=LARGEST_INT)] | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        return check_fields(given, set(cls.model_fields)) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _whole(self) -> "Decoding":
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "stream_options goes with stream=true alone")
        return self


def _text_of(content: object) -> str | None:
    """The text of a message's content, which may come in parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refused("content", "the content of a message must be a text or a list of parts")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            said = f"of type {kind[:50]!r}" if isinstance(kind, str) else "without a type"
            raise refused(
                "content",
                f"part {index} of a message's content is {said}; this model takes text alone: "
                '{"type": "text", "text": ".."}',
            )
        texts.append(part["text"])
    return "".join(texts)


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
        {"type": "null"},
    ]
}


class CalledFunction(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Strict):
    """A message of a chat; "developer" is another word for "system"."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_text_of), WithJsonSchema(_CONTENT_SCHEMA)] = (
        None
    )
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    metadata: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return check_fields(given, set(cls.model_fields), NEUTRAL_IN_MESSAGES, ())

    @model_validator(mode="after")
    def _whole(self) -> "Message":
        if self.tool_calls and self.role != "assistant":
            raise refused("tool_calls", f"a message of {self.role!r} has no tool_calls")
        if self.content is None and not self.tool_calls:
            raise refused("content", f"a message of {self.role!r} must have a content")
        return self

    def as_dict(self) -> JsonObject:
        """As templates take it."""
        found = self.model_dump(exclude_none=True)
        return {**found, "role": "system"} if self.role == "developer" else found


class Function(Strict):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: str | None = None
    parameters: JsonObject | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


def _choice(value: object) -> str | None:
    if value is None or value in ("none", "auto"):
        return None if value is None else str(value)
    raise refused(
        "tool_choice",
        'tool_choice must be "none" or "auto": whether a function is called, the model decides',
    )


class ChatRequest(Decoding):
    """The body of POST /v1/chat/completions.

    Attributes:
      messages: one at least.
      tools: functions that the model may call.
      max_completion_tokens: another word for max_tokens.
      logprobs: report the log-probability of each token.
      top_logprobs: and of as many that might stand in its place.
    """

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Annotated[
        Literal["none", "auto"] | None, BeforeValidator(_choice)
    ] = None  # fmt: skip
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "ChatRequest":
        if self.max_tokens == 0:
            raise refused("max_tokens", "max_tokens must be at least 1; got 0")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise refused(
                "max_tokens", f"max_tokens and max_completion_tokens differ: {both[0]}, {both[1]}"
            )
        if self.top_logprobs and not self.logprobs:
            raise refused("top_logprobs", "top_logprobs goes with logprobs=true alone")
        return self


def _prompts(value: object) -> list[str] | list[list[int]]:
    """Prompts in one form: a list of texts, or a list of lists of ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(one, str) for one in value):
            return value
        if all(map(_is_id, value)):
            return [value]
        if all(isinstance(one, list) and one and all(map(_is_id, one)) for one in value):
            return value
    raise refused(
        "prompt",
        "prompt must be a text, a list of texts, a list of ids or a list of lists of ids, none of "
        "the lists empty",
    )


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_INT


_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}


class CompletionRequest(Decoding):
    """The body of POST /v1/completions.

    Attributes:
      prompt: texts or ids; an answer to each.
      max_tokens: 16 where it is not given; 0: no answer, with echo the prompt is scored alone.
      logprobs: report the log-probability of each token, and of as many that might stand in its
        place.
      echo: put the prompt in front of the answer.
      best_of: n, if anything.
    """

    prompt: Annotated[
        list[str] | list[list[int]], BeforeValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)
    ]
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Count | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise refused(
                "best_of", f"best_of must be n={self.n or 1}, or left out; got {self.best_of}"
            )
        return self
