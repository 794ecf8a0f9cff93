"""What the tokenizers of chat models have in common; see `glm_jax.tokenizers.tokenizer`.

Special tokens have ids of their own, and text never becomes them: a user's "<|user|>" stays seven
letters and signs. They come from `encode(.., allow_special=True)` and from `apply_chat_template`.
"""

import abc
import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.answers import read_turn
from glm_jax.tokenizers.calls import Calls, with_calls_as_text
from glm_jax.tokenizers.chat_formats import Chat, Prompt, Token
from glm_jax.tokenizers.files import TokenizerFiles
from glm_jax.tokenizers.ids import check_text, id_row
from glm_jax.tokenizers.messages import checked_messages, checked_tools
from glm_jax.tokenizers.protocol import Messages
from glm_jax.tokenizers.rendering import Rendering, names_of
from glm_jax.tokenizers.settings import KINDS
from glm_jax.tokenizers.templates import ChatTemplate
from glm_jax.tokenizers.training_example import (
    Conversation,
    TrainingExample,
    by_template,
    training_example,
)

# A token that contains one of these ends a sentence.
SENTENCE_MARKS = ".?!;:\n。？！；…"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_ASSISTANT = "<|assistant|>"


class ChatTokenizer(abc.ABC):
    """Text to ids and back, and the prompts of a chat.

    Attributes:
      kind: one of `settings.KINDS`, or "huggingface".
      vocab_size: V, special tokens included; models may pad it.
      special: the ids that the objectives and the blanks use.
      special_ids: the id of every special token, by its spelling.
      fingerprint: SHA-256 of what ids depend on, in hexadecimal.
      chat_end_ids: ids that end an answer.
      carries_spaces: whether the space in front of a word is part of its token.
      frames_texts: whether [CLS] and eos stand around a text with blanks.
    """

    carries_spaces = True
    frames_texts = False
    # Whether the text of a prompt has its special tokens spelled in it.
    _spells_prompts: ClassVar[bool] = True
    # Variables of the built-in format.
    _options: Sequence[str] = ()
    # How the model calls tools; None: it does not.
    _calls: Calls | None = None

    def __init__(
        self,
        files: TokenizerFiles,
        kind: str,
        vocab_size: int,
        special_ids: Mapping[str, int],
        special: SpecialTokens,
        ends: Sequence[str],
    ):
        """Args:
        files: what it was read from.
        kind, vocab_size, special_ids, special: the attributes.
        ends: spellings of the tokens that end an answer.
        """
        self.kind, self.vocab_size = kind, vocab_size
        self.special_ids, self.special = dict(special_ids), special
        self.chat_end_ids = tuple(dict.fromkeys(special_ids[end] for end in ends))
        self._files = files
        self._templates = files.templates()
        # Of spellings with one id, the first is what is written.
        self._spelling_of = {id_: one for one, id_ in reversed(list(special_ids.items()))}
        patterns = map(_pattern, sorted(special_ids, key=len, reverse=True))
        self._spelling = re.compile(f"({'|'.join(patterns)})")
        digest = hashlib.sha256(repr(sorted(special_ids.items())).encode() + b"\0")
        digest.update(files.vocabulary)
        self.fingerprint = digest.hexdigest()

    @abc.abstractmethod
    def _encode(self, text: str) -> list[int]:
        """The ids of a text, none of them special."""

    @abc.abstractmethod
    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`_encode` of many texts."""

    @abc.abstractmethod
    def _decode(self, ids: list[int], begins: bool) -> str:
        """The text of ids that are not special; `begins`: nothing precedes them."""

    @abc.abstractmethod
    def piece(self, id_: int) -> str:
        """How the vocabulary spells an id; of a special token, its spelling."""

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        """The prompt in the built-in format.

        Raises:
          UserError: there is none, or the messages do not fit it.
        """
        raise UserError(
            f"{self._files.place} has no chat format: neither a chat_template.jinja nor a "
            "chat_template in tokenizer_config.json lies beside it"
        )

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Returns the ids of a text; no token is added in front or behind.

            encode("<|user|>hi")                        ▁ < | user | > hi
            encode("<|user|>hi", allow_special=True)    <|user|> ▁hi

        Args:
          text: any text.
          allow_special: read the spellings of special tokens as their ids.
        """
        check_text("encode", text, "decode(ids) gives text")
        if not allow_special:
            return self._encode(text)
        parts = self._spelling.split(text)
        return [
            id_
            for index, part in enumerate(parts)
            for id_ in ([self.special_ids[part]] if index % 2 else self._encode(part))
        ]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, without special tokens; faster than one by one."""
        if isinstance(texts, str):
            raise UserError("encode_batch takes a list of texts and got one text; use encode")
        return self._encode_batch([check_text("encode_batch", text, "") for text in texts])

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Returns the text of ids, as the published code does.

        Args:
          ids: 0 or above. From `vocab_size` on, where models have room that no token uses, each is
            spelled as U+FFFD.
          skip_special: leave special tokens out instead of spelling them.

        Raises:
          UserError: an id below 0.
        """
        text, run, begins = "", list[int](), True
        for id_ in id_row("decode", ids, "encode(text), which gives ids"):
            if id_ < 0:
                raise UserError(f"decode takes ids from 0 on; got {id_}")
            known = id_ < self.vocab_size
            if known and id_ not in self._spelling_of:
                run.append(id_)
                continue
            text += self._decode(run, begins)
            if not known or not skip_special:
                text += self._spelling_of[id_] if known else _UNKNOWN
            run, begins = [], False
        return text + self._decode(run, begins)

    def sentence_ends(self) -> np.ndarray:
        """[V] bool: which ids end a sentence; those whose text holds one of `SENTENCE_MARKS`."""
        ends = np.zeros(self.vocab_size, np.bool_)
        for id_ in set(range(self.vocab_size)) - self._spelling_of.keys():
            ends[id_] = any(mark in self._decode([id_], False) for mark in SENTENCE_MARKS)
        return ends

    def apply_chat_template(
        self,
        messages: Messages,
        tools: Messages | None = None,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        **variables: object,
    ) -> list[int] | str:
        """The prompt of a chat: by the checkpoint's own template where it has one.

            ChatGLM3, [{"role": "user", "content": "你好"}]
                ->  [gMASK] sop <|user|> ▁ <0x0A> ▁你 好 <|assistant|>

        Args:
          messages: dicts with role and content; optional metadata, tools, tool_calls.
          tools: descriptions of functions, {"name": .., "description": .., "parameters": ..} or
            those under "function". A template that has no tools is passed over for the built-in
            format where that has.
          add_generation_prompt: end where the model's answer begins.
          tokenize: False: the text. That of ChatGLM-6B and ChatGLM2 is without [gMASK] and sop,
            which their published code adds by id.
          **variables: further ones of the template, such as enable_thinking=False.

        Returns:
          The ids, or the text.

        Raises:
          UserError: no format, messages that do not fit it, or a template that is refused.
        """
        chat = Chat(checked_messages(messages), checked_tools(tools), add_generation_prompt)
        template = self._template_for(chat)
        if template is not None:
            rendering = self._rendering(template)
            return rendering.ids(chat, variables) if tokenize else rendering.text(chat, variables)
        if unknown := sorted(set(variables) - set(self._options)):
            raise UserError(
                f"the built-in chat format of {self.kind} does not use {', '.join(unknown)}"
            )
        if self._calls is not None:
            written = with_calls_as_text(chat.messages, self._calls)
            chat = dataclasses.replace(chat, messages=written)
        prompt = self._format(chat, variables)
        if tokenize:
            return [id_ for part in prompt for id_ in self._ids_of(part)]
        spelled = self._spells_prompts
        return "".join(
            part if isinstance(part, str) else part.spelling if spelled else "" for part in prompt
        )

    def training_example(
        self,
        messages: Messages,
        tools: Messages | None = None,
        loss_on: str = "published",
        max_source_length: int | None = None,
        max_target_length: int | None = None,
    ) -> TrainingExample:
        """A conversation as the model is tuned on it (`Tokenizer.training_example`)."""
        given, described = checked_messages(messages), checked_tools(tools)
        chat = Conversation.of(given, described, loss_on, max_source_length, max_target_length)
        if self.kind in KINDS:
            return training_example(self, chat)
        template = self._template_for(Chat(chat.messages, chat.tools, opens=False))
        if template is None:
            raise UserError(f"{self._files.place} has no chat template, so no examples of chats")
        return by_template(self, chat, self._rendering(template))

    @property
    def chat_fingerprint(self) -> str:
        """SHA-256 of what a chat's text depends on beside the vocabulary, in hexadecimal."""
        sources = {name: template.source for name, template in self._templates.items()}
        return hashlib.sha256(repr((self.kind, sorted(sources.items()))).encode()).hexdigest()

    def read_answer(self, ids: Sequence[int] | str, tools: Messages | None = None) -> JsonObject:
        """The message that an answer is.

            get_weather             {"role": "assistant", "metadata": "get_weather",
            {"city": "x"}     ->     "content": '{"city": "x"}', "tool_calls": [{"type": "function",
                                     "function": {"name": "get_weather", "arguments": {..}}}]}

        Args:
          ids: as they were generated, the end id cut off; or their text.
          tools: what the model was given; without them no calls are read.

        Returns:
          role, content; metadata, tool_calls, reasoning_content (thoughts) where there are any. A
          call that cannot be read stays text. What the model said in messages of its own before the
          last one is under "earlier"; `apply_chat_template` takes it back.
        """
        has_tools = checked_tools(tools) is not None
        if isinstance(ids, str):
            texts = ids.split(_ASSISTANT)
        else:
            texts = [self.decode(part) for part in self._cut(id_row("read_answer", ids, ""))]
        if self._begins_in_thought and "<think>" not in texts[0]:
            texts[0] = f"<think>{texts[0]}"
        return read_turn(texts, self._calls, has_tools)

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer's files into an existing directory."""
        self._files.save(directory, self.kind if self.kind in KINDS else None)

    def _cut(self, ids: list[int]) -> list[list[int]]:
        """The ids, cut at the token of the assistant."""
        parts: list[list[int]] = [[]]
        for id_ in ids:
            if id_ == self.special_ids.get(_ASSISTANT):
                parts.append([])
            else:
                parts[-1].append(id_)
        return parts

    def _ids_of(self, part: Token | str) -> list[int]:
        return self._encode(part) if isinstance(part, str) else [self.special_ids[part.spelling]]

    def _template_for(self, chat: Chat) -> ChatTemplate | None:
        """The checkpoint's template, or None where the built-in format is used."""
        if not self._templates:
            return None
        has_tools = chat.tools is not None or any("tools" in one for one in chat.messages)
        template = self._templates.get("tool_use") if has_tools else None
        template = template or self._templates.get("default")
        if template is None:
            raise UserError(
                f"{self._files.place} has no chat template with the name 'default'; its templates "
                f"are {sorted(self._templates)}"
            )
        if has_tools and "tools" not in template.source:
            if self._calls is None:
                raise UserError(f"{template.name} has no tools")
            return None
        return template

    def _rendering(self, template: ChatTemplate) -> Rendering:
        names = names_of(self._files.config)
        return Rendering(
            template, self.special_ids, self._spelling, self._encode, names, self._calls
        )

    @functools.cached_property
    def _begins_in_thought(self) -> bool:
        """Whether a prompt of the checkpoint's template ends in "<think>", as Z1's does."""
        template = self._templates.get("default")
        if template is None or "<think>" not in template.source:
            return False
        try:
            text = self.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
        except UserError:  # whoever asks for a prompt is told
            return False
        return str(text).rstrip().endswith("<think>")


def required(ids: Mapping[str, int], place: str, *spellings: str) -> list[int]:
    """The ids of special tokens.

    Raises:
      UserError: the tokenizer lacks one; names all that it lacks.
    """
    missing = [one for one in spellings if one not in ids]
    if missing:
        raise UserError(f"{place} lacks the special tokens {', '.join(missing)}")
    return [ids[one] for one in spellings]


def _pattern(spelling: str) -> str:
    """Matches a spelling; one of letters alone, "sop", only where no word goes on."""
    found = re.escape(spelling)
    return rf"(?<![A-Za-z]){found}(?![A-Za-z])" if spelling.isalpha() else found
