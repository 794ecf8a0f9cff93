"""The format "prompts": what a policy is to answer, and whatever else a reward is told of it.

    {"prompt": "1 + 1 = ?", "answer": "2"}
    {"messages": [{"role": "user", "content": "1 + 1 = ?"}], "tools": [..], "level": 3}

A prompt is an example that breaks off where its answer begins, so an answer goes on in its row:

    causal          <|user|> hi <|assistant|>        learnt  .  .  x
    fills blanks    hi [gMASK] sop                   learnt  .  .  x       prefix 2, blank 1
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.conversations import tools_of
from glm_jax.data.examples.example import Example
from glm_jax.data.examples.prompt_messages import prompt_key, prompt_of
from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject, some
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.training_example import Conversation, without_format


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt, checked.

    Attributes:
      given: the prompt as it stands in the file, a text or messages.
      messages: the last of them not the assistant's.
      tools: descriptions of tools, or None.
    """

    given: object
    messages: list[Message]
    tools: list[JsonObject] | None

    @property
    def content(self) -> str:
        """All of it as one text."""
        return json.dumps([self.messages, self.tools], sort_keys=True)


class PromptMaker:
    """Makes an example of a prompt; a `Maker`."""

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool):
        """Args:
        config: the names of columns.
        tokenizer: of the model, which writes the chat.
        fills_blanks: `ModelConfig.fills_blanks`.
        """
        self._config, self._tokenizer, self._fills_blanks = config, tokenizer, fills_blanks

    def content(self, record: JsonObject) -> str:
        return read_question(record, self._config).content

    def examples(self, record: JsonObject) -> list[Example]:
        question = read_question(record, self._config)
        ids = prompt_ids(question, self._tokenizer)
        if not self._fills_blanks:
            return [_prompt_example(ids, np.arange(len(ids)), 0)]
        positions = np.arange(len(ids))
        positions[-1] = blank_of(ids, self._tokenizer.special)
        return [_prompt_example(ids, positions, len(ids) - 1)]


def read_question(record: JsonObject, config: ExamplesConfig) -> Question:
    """The prompt in an object of a file.

    Args:
      record: the object.
      config: the names of its columns.

    Raises:
      UserError: a key that it lacks, no messages, or an assistant's message at the end.
    """
    messages, key = prompt_of(record, config), prompt_key(record, config)
    if not messages or key is None:
        raise UserError(
            f"there is no prompt: no key {config.prompt_field!r} or 'messages'; the keys are "
            f"{some(list(record))}"
        )
    if messages[-1]["role"] == "assistant":
        raise UserError("a prompt ends where the policy is to answer, not in an answer")
    if not any(str(one["content"]).strip() for one in messages):
        raise UserError("the prompt is empty")
    return Question(
        record[key], messages, tools_of(record.get(config.tools_field), config.tools_field)
    )


def prompt_ids(question: Question, tokenizer: Tokenizer) -> list[int]:
    """The ids that an answer goes on from; of a blank with its start id at the end."""
    if tokenizer.chat_end_ids:
        ids = tokenizer.apply_chat_template(question.messages, question.tools)
        assert isinstance(ids, list)
        return ids
    stand_in: Message = {"role": "assistant", "content": "."}
    chat = Conversation.of([*question.messages, stand_in], question.tools, "last", None, None)
    made = without_format(tokenizer, chat)
    return made.ids[: made.prefix + 1]


def blank_of(ids: Sequence[int], special: SpecialTokens) -> int:
    """The slot of the blank that an answer behind these ids fills: of [gMASK], else the first.

    Raises:
      UserError: there is none, or the ids do not end in the start id.
    """
    masks = [special.gmask] if special.gmask in ids else special.masks
    found = next((slot for slot, id_ in enumerate(ids[:-1]) if id_ in masks), None)
    if found is None or ids[-1] != special.start:
        raise UserError("a model that fills blanks needs a prompt that ends in a blank's start")
    return found


def _prompt_example(ids: Sequence[int], positions: np.ndarray, prefix: int) -> Example:
    tokens, learnt = np.asarray(ids, np.int32), np.zeros(len(ids), bool)
    learnt[-1] = True
    # What an answer begins with is not known: the last target says nothing.
    targets = np.append(tokens[1:], 0)
    return Example(tokens, targets, learnt, positions, learnt * int(prefix > 0), prefix)
