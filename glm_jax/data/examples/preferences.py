r"""The format "preferences": a prompt, the answer that was preferred, and another one.

    prompt and answers    {"prompt": "hi", "chosen": "Hello!", "rejected": "What?"}
    messages              {"prompt": [..] or "messages": [..], "chosen": [one], "rejected": [one]}
    without a prompt      {"chosen": [.., answer], "rejected": [.., answer]}, or two texts
    ShareGPT              {"conversations": [{"from": "human", "value": "hi"}],
                           "chosen": {"from": "gpt", "value": ".."}, "rejected": {..}}
    transcripts           {"chosen": "\n\nHuman: hi\n\nAssistant: Hello!", "rejected": ".."}
        -> messages up to the answer, and two answers

They are those of TRL (explicit and implicit prompts), LLaMA-Factory and Anthropic's data. A prompt
that is not given is what both have in common: of two texts, up to their last common space.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence

import numpy as np

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.conversations import check_turns, tools_of
from glm_jax.data.examples.example import Example, example_of
from glm_jax.data.examples.prompt_messages import (
    column_of,
    messages_of,
    of_transcript,
    prompt_of,
)
from glm_jax.errors import UserError, short
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.training_example import Conversation, without_format


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, checked.

    Attributes:
      prompt: messages, the last of them not the assistant's.
      chosen, rejected: one message of the assistant each.
      tools: descriptions of tools, or None.
      margin: by how much the chosen answer must win; None without `examples.margin_field`.
    """

    prompt: list[Message]
    chosen: Message
    rejected: Message
    tools: list[JsonObject] | None
    margin: float | None = None

    @property
    def content(self) -> str:
        """The prompt as one text: all pairs of a prompt are of one split."""
        return json.dumps([self.prompt, self.tools], sort_keys=True)


class PreferenceMaker:
    """Makes two examples of a pair, the chosen answer first; a `Maker`."""

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool):
        """Args:
        config: columns and lengths.
        tokenizer: of the model, which writes the chat.
        fills_blanks: `ModelConfig.fills_blanks`.
        """
        self._config, self._tokenizer, self._fills_blanks = config, tokenizer, fills_blanks

    def content(self, record: JsonObject) -> str:
        return read_pair(record, self._config).content

    def examples(self, record: JsonObject) -> list[Example]:
        pair = read_pair(record, self._config)
        made = [self._example(pair, answer) for answer in (pair.chosen, pair.rejected)]
        if any(not example.learnt.any() for example in made):
            raise UserError(
                "the prompt leaves no token of an answer: raise examples.max_source_length and "
                "examples.max_target_length"
            )
        chosen, rejected = (example.targets[example.learnt] for example in made)
        if np.array_equal(chosen, rejected):
            raise UserError(
                f"{self._config.chosen_field!r} and {self._config.rejected_field!r} have the same "
                f"tokens: {short(pair.chosen['content'])}"
            )
        if pair.margin is None:
            return made
        return [
            dataclasses.replace(one, margin=margin)
            for one, margin in zip(made, (pair.margin, 0.0), strict=True)
        ]

    def _example(self, pair: Pair, answer: Message) -> Example:
        messages, tokenizer = [*pair.prompt, answer], self._tokenizer
        lengths = self._config.max_source_length, self._config.max_target_length
        if not tokenizer.chat_end_ids:
            chat = Conversation.of(messages, pair.tools, "last", *lengths)
            return example_of(without_format(tokenizer, chat), self._fills_blanks)
        made = tokenizer.training_example(messages, pair.tools, "last", *lengths)
        return example_of(made, self._fills_blanks)


def read_pair(record: JsonObject, config: ExamplesConfig) -> Pair:
    """The pair in an object of a file.

    Args:
      record: the object.
      config: the names of its columns.

    Raises:
      UserError: a key that it lacks, a shape that is none of those above, roles out of order, or
        answers that are empty or equal.
    """
    names = (config.chosen_field, config.rejected_field)
    chosen, rejected = (column_of(record, name) for name in names)
    prompt = prompt_of(record, config)
    if prompt is None:
        prompt, chosen, rejected = _apart(chosen, rejected, names)
    tools = tools_of(record.get(config.tools_field), config.tools_field)
    found = [
        _answer(value, name, prompt) for value, name in zip((chosen, rejected), names, strict=True)
    ]
    for answer, name in zip(found, names, strict=True):
        if not str(answer["content"]).strip() and not answer.get("tool_calls"):
            raise UserError(f"{name!r} is an empty answer")
    if found[0] == found[1]:
        raise UserError(
            f"{names[0]!r} and {names[1]!r} are the same answer: {short(found[0]['content'])}"
        )
    if not prompt:
        raise UserError("there is no prompt in front of the two answers")
    for answer in found:
        check_turns([*prompt, answer])
    return Pair(prompt, found[0], found[1], tools, _margin(record, config.margin_field))


def _margin(record: JsonObject, name: str | None) -> float | None:
    """The number of a column; None where no column is named."""
    if name is None:
        return None
    value = column_of(record, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name!r} must be a number, the margin of the pair; got {short(value)}")
    return float(value)


def _answer(given: object, name: str, prompt: list[Message]) -> Message:
    """One message of the assistant, from a text, a message or a list of one."""
    if isinstance(given, str):
        return {"role": "assistant", "content": given.strip()}
    messages = messages_of(given, name)
    if len(messages) > 1 and messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = [one["role"] for one in messages]
        raise UserError(
            f"{name!r} must be one message of the assistant behind the prompt; got {roles}"
        )
    return messages[0]


def _apart(
    chosen: object, rejected: object, names: tuple[str, str]
) -> tuple[list[Message], object, object]:
    """The prompt that two wholes have in common, and the rest of each."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        if chosen.startswith("\n\nHuman:"):
            both = [
                of_transcript(text, name)
                for text, name in zip((chosen, rejected), names, strict=True)
            ]
            return _common(both, names)
        shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071, they are texts
        edge = max(shared.rfind(" "), shared.rfind("\n")) + 1
        if not shared[:edge].strip():
            raise UserError(
                f"there is no prompt: {names[0]!r} and {names[1]!r} begin with different words"
            )
        prompt = [{"role": "user", "content": shared[:edge].rstrip()}]
        return prompt, chosen[edge:], rejected[edge:]
    return _common(
        [messages_of(one, name) for one, name in zip((chosen, rejected), names, strict=True)], names
    )


def _common(
    both: Sequence[list[Message]], names: tuple[str, str]
) -> tuple[list[Message], object, object]:
    first, second = both
    if first[:-1] != second[:-1]:
        raise UserError(
            f"{names[0]!r} and {names[1]!r} must have the same messages up to their last; they "
            f"have {len(first)} and {len(second)}, and differ before"
        )
    return first[:-1], first[-1:], second[-1:]
