"""The format "seq2seq": a source and a target.

    GLM       [CLS] [sMASK] ▁Content : ▁source | start ▁target end      (THUDM/GLM, tasks/seq2seq)
    a chat    the source is a user's message and the target the answer, by the published rule

Padding inside of part A, which the published code attends to, does not exist here.
"""

from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.blanks import Blanks, cloze_example
from glm_jax.data.examples.example import Example, example_of
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import JsonObject, some
from glm_jax.tokenizers.messages import Message
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.training_example import Conversation, without_format


class Seq2SeqMaker:
    """Makes examples of sources and targets; a `Maker`."""

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool):
        """Args:
        config: columns and lengths.
        tokenizer: of the model.
        fills_blanks: `ModelConfig.fills_blanks`.
        """
        self._config, self._tokenizer = config, tokenizer
        self._blanks = Blanks(tokenizer, fills_blanks)

    def content(self, record: JsonObject) -> str:
        return repr(self.texts(record))

    def texts(self, record: JsonObject) -> tuple[str, str]:
        """Source and target.

        Raises:
          UserError: a column is missing, or holds no text.
        """
        names = ("source_field", "target_field")
        source, target = (_text(record, getattr(self._config, name), name) for name in names)
        return source, target

    def examples(self, record: JsonObject) -> list[Example]:
        source, target = self.texts(record)
        config, tokenizer = self._config, self._tokenizer
        lengths = config.max_source_length, config.max_target_length
        if self._blanks.fills_blanks and not tokenizer.chat_end_ids:
            return [self._in_part_b(source, target)]
        messages: list[Message] = [
            {"role": "user", "content": source},
            {"role": "assistant", "content": target},
        ]
        if tokenizer.chat_end_ids:
            text = tokenizer.training_example(messages, None, "published", *lengths)
        else:
            chat = Conversation.of(messages, None, "published", *lengths)
            text = without_format(tokenizer, chat)
        return [example_of(text, self._blanks.fills_blanks)]

    def _in_part_b(self, source: str, target: str) -> Example:
        """GLM's form; lengths count all of part A, and the answer with its end."""
        special, encode = self._tokenizer.special, self._tokenizer.encode
        for text in (source, target):
            self._blanks.check(text)
        # Read as the middle of a text, with a space in front.
        prompt = encode(f"[sMASK] Content: {source.strip()}", allow_special=True)
        answer = encode(f"[sMASK] {target.strip()}", allow_special=True)
        most = self._config.max_source_length
        return cloze_example(
            prompt if most is None else prompt[: most - 1],
            [*answer[answer.index(special.smask) + 1 :], special.end][
                : self._config.max_target_length
            ],
            special,
            frame=True,
            eos=False,
        )


def _text(record: JsonObject, name: str, option: str) -> str:
    if name not in record:
        raise UserError(
            f"there is no column {name!r} (examples.{option}); the columns are "
            f"{some(list(record))}{did_you_mean(name, record)}"
        )
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{name!r} must be a text; got {short(value)}")
    return value
