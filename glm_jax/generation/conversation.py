"""A conversation: messages in a model's chat format, answered on a cache that is kept.

talk = Conversation(glm_jax.load("chatglm3-6b"), temperature=0.8, top_p=0.8)
talk.say("床前明月光的下一句是什么？").message["content"]
talk.say("And the one after it?", on_text=print)
talk.undo()

The prompt of a turn is the whole history, as the tokenizer's template writes it; what the cache
holds of it is not computed again (`glm_jax.generation.kept_row`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from glm_jax.checks import whole_number
from glm_jax.errors import UserError
from glm_jax.generation.ends import chat_ends_of, marks_of
from glm_jax.generation.kept_row import Ended, KeptRow, never
from glm_jax.generation.options import Limits
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.streaming import TextStream
from glm_jax.generation.suggested import suggested
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Messages, Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# Of the context, at least this share is left for an answer when old turns are dropped, unless
# max_new_tokens is less.
_ANSWER_SHARE = 4


class ChatOptions(TypedDict, total=False):
    """The fields of `Sampling`, the keyword arguments of a chat."""

    temperature: float
    top_k: int
    top_p: float
    seed: int
    repetition_penalty: float
    min_new_tokens: int
    no_repeat_ngram: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
      message: {"role": "assistant", "content": .., "tool_calls": [..] if there are any}.
      ids: as they were generated, without the end id.
      ended: by an end id ("end"), at the longest length ("length"), or by the caller ("stopped").
      dropped: number of old turns that no longer fitted the context.
    """

    message: Message
    ids: list[int]
    ended: Ended
    dropped: int = 0


class Conversation:
    """Messages and their answers.

    A turn begins with a message of the user. Models that fill blanks (ChatGLM-6B) compute the whole
    prompt anew in each turn: its tokens all attend to each other, so no cache of it can be kept.

    Attributes:
      model: that answers.
      messages: so far; may be changed between two answers.
      tools: descriptions of functions that the model may call.
    """

    def __init__(
        self,
        model: "LanguageModel",
        messages: Messages | str = (),
        tools: Messages | None = None,
        max_new_tokens: int = 512,
        **sampling: Unpack[ChatOptions],
    ):
        """Computes nothing.

        Args:
          model: with a tokenizer that knows a chat format.
          messages: to begin with; a text is one message of the user.
          tools: descriptions of functions, for models that were trained to call some.
          max_new_tokens: number of ids of the longest answer, which also ends where the context
            does.
          **sampling: fields of `Sampling`; greedy by default, whatever generation_config.json
            says.

        Raises:
          UserError: no tokenizer, messages that are none, an option out of range.
        """
        self.tools, self.messages = tools, as_messages(messages)
        self.model, self._tokenizer = model, _tokenizer(model)
        self._max_new_tokens = whole_number("max_new_tokens", max_new_tokens, least=1)
        self._sampling = Sampling(**sampling)
        self._row: KeptRow | None = None

    @property
    def context(self) -> int:
        """The longest prompt and answer together, in tokens."""
        return self.model.config.max_positions

    @property
    def length(self) -> int:
        """Tokens so far: of the prompt that a next message of the user would have, were it empty.

        Formats have prompts that end in such a message, and may refuse others.
        """
        if not self.messages:
            return 0
        return len(self.prompt([*self.messages, {"role": "user", "content": ""}]))

    @property
    def cached(self) -> int:
        """Number of tokens whose keys and values are kept."""
        return len(self._row.cached) if self._row else 0

    @property
    def suggested(self) -> dict[str, float]:
        """The options of sampling in the checkpoint's generation_config.json; not taken unasked."""
        return suggested(self.model._origin)

    def prompt(self, messages: Sequence[Message] | None = None) -> list[int]:
        """The ids to which an answer is the continuation; None: of all messages so far."""
        written = self.messages if messages is None else messages
        ids = self._tokenizer.apply_chat_template(written, tools=self.tools)
        assert not isinstance(ids, str)  # which it is with tokenize=False
        return ids

    def say(
        self,
        message: str | Message,
        on_text: Callable[[str], object] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Answer:
        """Adds a message and its answer; drops the oldest turns while these do not fit the context.

        Args:
          message: of the user, or a dict with another role, such as the result of a tool.
          on_text, stop: as of `answer`.

        Raises:
          UserError: the message alone does not fit, or the template refuses it. It is not kept.
        """
        before, (new,) = list(self.messages), as_messages([message])
        self.messages.append(new)
        try:
            dropped = self._fit()
            answer = self.answer(on_text, stop)
        except BaseException:
            self.messages = before
            raise
        if answer.ended == "stopped" and not answer.ids:
            self.messages = before
        return dataclasses.replace(answer, dropped=dropped)

    def answer(
        self,
        on_text: Callable[[str], object] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Answer:
        """Answers the messages, and adds the answer to them.

        Args:
          on_text: called with parts of the answer's text while it is generated, thoughts and calls
            of tools as the model writes them; no part ends within a character.
          stop: asked before each step; True ends the answer there, and what there is of it is kept.

        Raises:
          UserError: no messages, or more than fit the context.
        """
        if not self.messages:
            raise UserError("no messages; give one at least")
        ids = self.prompt()
        room = self.context - len(ids)
        if room < 1:
            raise UserError(self._too_long(len(ids)))
        ends = chat_ends_of(self.model._origin, self._tokenizer.chat_end_ids)
        limits = Limits(ends, min(self._max_new_tokens, room))
        text = TextStream(self._tokenizer.decode, on_text) if on_text is not None else None
        found = self._kept_row().continue_(
            ids, limits, self._sampling, None if text is None else text.push, stop
        )
        if text is not None:
            text.finish()
        message = self._tokenizer.read_answer(found.ids, tools=self.tools)
        if found.ids or found.ended != "stopped":
            self.messages.append(message)
        return Answer(message, found.ids, found.ended)

    def undo(self) -> Message | None:
        """Takes the last turn back and returns its message of the user; None: there is no turn."""
        begins = self._turns()
        if not begins:
            return None
        taken = self.messages[begins[-1]]
        del self.messages[begins[-1] :]
        return taken

    def clear(self) -> None:
        """Forgets all turns; a system message stays."""
        begins = self._turns()
        del self.messages[begins[0] if begins else len(self.messages) :]

    def set_system(self, content: str) -> None:
        """Puts a system message in front, in place of one that is there; "": takes it away.

        Raises:
          UserError: the model's format has no system message; nothing is changed.
        """
        had = bool(self.messages) and self.messages[0]["role"] == "system"
        system = [{"role": "system", "content": content}] if content else []
        self.prompt([*system, {"role": "user", "content": "?"}])
        self.messages[: int(had)] = system

    def _turns(self) -> list[int]:
        """Indices of the messages with which turns begin."""
        return [i for i, message in enumerate(self.messages) if message["role"] == "user"]

    def _fit(self) -> int:
        """Drops the oldest turns until there is room for an answer; returns their number."""
        room = min(self._max_new_tokens, max(1, self.context // _ANSWER_SHARE))
        dropped = 0
        while (length := len(self.prompt())) + room > self.context:
            begins = self._turns()
            if len(begins) < 2:
                if length >= self.context:
                    raise UserError(self._too_long(length))
                break  # the newest turn alone: its answer gets what room there is
            del self.messages[begins[0] : begins[1]]
            dropped += 1
        return dropped

    def _too_long(self, length: int) -> str:
        return (
            f"the prompt has {length:,} tokens, and with one token of an answer does not fit the "
            f"model's context of {self.context:,} (model.max_positions)"
        )

    def _kept_row(self) -> KeptRow:
        """The row of the model's present parameters."""
        engine = self.model._engine()
        if self._row is None or self._row.engine is not engine:
            self._row = KeptRow(engine, marks_of(self.model._origin, self.model.special))
        return self._row


def _tokenizer(model: "LanguageModel") -> Tokenizer:
    if model.tokenizer is None:
        raise UserError("the checkpoint holds no tokenizer; a chat needs one")
    return model.tokenizer


def as_messages(messages: Iterable[Mapping[str, object] | str] | str) -> list[Message]:
    """Messages as dicts of their own; a text is one of the user.

    Raises:
      UserError: not a list of dicts with a role; names the one that is not.
    """
    if isinstance(messages, str | Mapping):
        messages = [messages]
    if not isinstance(messages, Iterable):
        raise UserError(f"messages must be a list of dicts, or a text; got {messages!r}")
    found = []
    for index, one in enumerate(messages):
        message = {"role": "user", "content": one} if isinstance(one, str) else one
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UserError(
                'a message is a dict such as {"role": "user", "content": "hello"}; message '
                f"{index} is {message!r}"
            )
        found.append(dict(message))
    return found
