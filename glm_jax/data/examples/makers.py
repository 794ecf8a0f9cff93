"""From an object of a file to examples, by the format of the file.

A `Maker` is chosen by `examples.format`; a further format is one more entry of `MAKERS`.
"""

from collections.abc import Callable
from typing import Protocol

from glm_jax.config.examples import CONVERSATIONS, ExamplesConfig
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.data.examples.conversations import Dialogue, read_dialogue
from glm_jax.data.examples.example import Example, example_of
from glm_jax.data.examples.preferences import PreferenceMaker
from glm_jax.data.examples.prompts import PromptMaker
from glm_jax.data.examples.seq2seq import Seq2SeqMaker
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.training_example import (
    Conversation,
    TrainingExample,
    each_answer,
    learns_one_answer,
    without_format,
)


class Maker(Protocol):
    """Makes examples of objects; its errors leave it to the caller to say where one stands."""

    def content(self, record: JsonObject) -> str:
        """What the object says; decides its split. Refuses an object that is not of the format."""
        ...

    def examples(self, record: JsonObject) -> list[Example]:
        """Its examples, cut to the published lengths; in some nothing may be left to learn."""
        ...


class ConversationMaker:
    """Makes examples of conversations, by the rule of the tokenizer's kind."""

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool):
        """Args:
        config: format, columns, what is learnt, and lengths.
        tokenizer: of the model.
        fills_blanks: `ModelConfig.fills_blanks`.
        """
        self._config, self._tokenizer, self._fills_blanks = config, tokenizer, fills_blanks
        # Of a format of prompts and answers, each answer is an example of its own.
        self._apart = config.loss_on == "assistant" and learns_one_answer(tokenizer)

    def content(self, record: JsonObject) -> str:
        return read_dialogue(record, self._config).content

    def examples(self, record: JsonObject) -> list[Example]:
        dialogue = read_dialogue(record, self._config)
        parts = each_answer(dialogue.messages) if self._apart else [dialogue.messages]
        loss_on = "last" if self._apart else self._config.loss_on
        return [
            example_of(self._example(part, dialogue, loss_on), self._fills_blanks) for part in parts
        ]

    def _example(
        self, messages: list[Message], dialogue: Dialogue, loss_on: str
    ) -> TrainingExample:
        config, tokenizer = self._config, self._tokenizer
        lengths = config.max_source_length, config.max_target_length
        if not tokenizer.chat_end_ids:
            chat = Conversation.of(messages, dialogue.tools, loss_on, *lengths)
            return without_format(tokenizer, chat)
        return tokenizer.training_example(messages, dialogue.tools, loss_on, *lengths)


MAKERS: dict[str, Callable[[ExamplesConfig, Tokenizer, bool], Maker]] = {
    **dict.fromkeys(CONVERSATIONS, ConversationMaker),
    "seq2seq": Seq2SeqMaker,
    "cloze": ClozeMaker,
    "preferences": PreferenceMaker,
    "prompts": PromptMaker,
}


def may_have_part_a(tokenizer: Tokenizer) -> bool:
    """Whether its conversations have a part A, in a model that fills blanks."""
    return tokenizer.kind == "chatglm" or not tokenizer.chat_end_ids


def maker_of(config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool) -> Maker:
    """The maker of `examples.format`, which is not None."""
    return MAKERS[str(config.format)](config, tokenizer, fills_blanks)
