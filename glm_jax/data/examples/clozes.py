"""The format "cloze": columns in a pattern, and what fills its blank.

{"text": "Never again.", "stars": "bad"}      pattern "{text} It was [MASK]."
    ->  Filled("Never again. It was ", "[MASK]", ".", "terrible"), candidates great, terrible
"""

import dataclasses
from collections.abc import Mapping, Sequence

from glm_jax.config.examples import ExamplesConfig
from glm_jax.config.patterns import Column, Pattern, read_pattern
from glm_jax.data.examples.blanks import Blanks, Filled
from glm_jax.data.examples.example import Example
from glm_jax.data.examples.superglue import READERS
from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import JsonObject, some
from glm_jax.tokenizers.protocol import Tokenizer

# Attempts to cut a text: ids at the borders of columns may grow together or apart.
_ATTEMPTS = 8


@dataclasses.dataclass(frozen=True)
class Cloze:
    """A cloze of a file, checked.

    Attributes:
      pattern: of the text.
      values: text of each column in the pattern.
      answer: what fills the blank.
      candidates: what may fill it, the answer among them; () where that is not known.
    """

    pattern: Pattern
    values: Mapping[str, str]
    answer: str
    candidates: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """All of it as one text."""
        return repr((sorted(self.values.items()), self.answer, self.candidates))


class ClozeMaker:
    """Makes examples of clozes; a `Maker`."""

    def __init__(self, config: ExamplesConfig, tokenizer: Tokenizer, fills_blanks: bool):
        """Args:
        config: pattern, verbalizers, columns and lengths.
        tokenizer: of the model.
        fills_blanks: `ModelConfig.fills_blanks`.
        """
        self._config, self._tokenizer = config, tokenizer
        self.blanks = Blanks(tokenizer, fills_blanks)
        self._words = config.words
        named = config.named
        self._read = READERS.get(named[0]) if named else None
        self._by = named[1].by if named else None
        text = named[1].pattern if named else str(config.pattern)
        patterns = {"": text} if isinstance(text, str) else text
        self._patterns = {key: read_pattern(value) for key, value in patterns.items()}

    def content(self, record: JsonObject) -> str:
        return "\n".join(one.content for one in self.clozes(record))

    def examples(self, record: JsonObject) -> list[Example]:
        most, found = self._config.max_target_length, self.clozes(record)
        answers = [(one, self._answers(one, len(found))) for one in found]
        return [
            self.blanks.example(self.filled(one, answer), most=most)
            for one, some_answers in answers
            for answer in some_answers
        ]

    def _answers(self, one: Cloze, clozes: int) -> list[str]:
        """What is made an example of: the answer, or all candidates, the right one first."""
        if not self._config.candidates:
            return [one.answer]
        if clozes > 1 or len(one.candidates) < 2:
            raise UserError(
                "examples.candidates takes one cloze an object, with two candidates at least; got "
                f"{clozes} with {len(one.candidates)}"
            )
        return [one.answer, *(other for other in one.candidates if other != one.answer)]

    def clozes(self, record: JsonObject) -> list[Cloze]:
        """The clozes of an object: one; of MultiRC one per answer, of WSC none if it is wrong.

        Raises:
          UserError: a column that it lacks, that is no text or that spells a special token, or a
            label outside of the verbalizers.
        """
        rows = [record] if self._read is None else self._read(record)
        return [self._cloze(row) for row in rows]

    def filled(self, one: Cloze, answer: str) -> Filled:
        """The text with its columns, cut to the published lengths, and an answer.

        The side of the blank that has more loses the last token of its last column, until it fits
        (github.com/THUDM/GLM, `PVP.truncate`, whose sides are those of two texts).
        """
        pattern, most = one.pattern, self._config.max_source_length
        encode, values = self._tokenizer.encode, dict(one.values)
        for _ in range(_ATTEMPTS):
            sides = [
                "".join(values[p.name] if isinstance(p, Column) else p for p in side)
                for side in (pattern.before, pattern.after)
            ]
            filled = Filled(sides[0], pattern.blank, sides[1], answer)
            if most is None:
                return filled
            over = len(self.blanks.prompt(filled)) - most
            if over <= 0:
                return filled
            left = _shortened(
                pattern, {name: len(encode(text)) for name, text in values.items()}, over
            )
            for name, count in left.items():
                values[name] = self._tokenizer.decode(encode(values[name])[:count]).rstrip("\ufffd")
        raise UserError(f"the text cannot be cut to examples.max_source_length={most}")

    def _cloze(self, row: JsonObject) -> Cloze:
        key = "" if self._by is None else _text(row, self._by)
        if key not in self._patterns:
            raise UserError(f"{self._by!r} must be one of {list(self._patterns)}; got {short(key)}")
        pattern = self._patterns[key]
        values = {
            column.name: column.text_of(_text(row, column.name)) for column in pattern.columns
        }
        for text in values.values():
            self.blanks.check(text)
        if self._words is None:
            given = "answer" if self._read is not None else self._config.label_field
            answer = _text(row, given)
            return Cloze(pattern, values, answer, _candidates(row))
        label = _label(row, self._config.label_field)
        if label not in self._words:
            raise UserError(
                f"{self._config.label_field!r} is {short(label)}, which examples.verbalizers do "
                f"not have{did_you_mean(label, self._words)}: {', '.join(self._words)}"
            )
        return Cloze(pattern, values, self._words[label], tuple(self._words.values()))


def _candidates(row: JsonObject) -> tuple[str, ...]:
    found = row.get("candidates")
    if not isinstance(found, Sequence) or isinstance(found, str):
        return ()
    return tuple(str(one) for one in found)


def _column(row: JsonObject, name: str) -> object:
    if name not in row:
        raise UserError(
            f"there is no column {name!r}{did_you_mean(name, row)}; the columns are "
            f"{some(list(row))}"
        )
    return row[name]


def _text(row: JsonObject, name: str) -> str:
    value = _column(row, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{name!r} must be a text; got {short(value)}")
    return str(value)


def _label(row: JsonObject, name: str) -> str:
    """A label as text; true and false of JSON as they are written there."""
    value = _column(row, name)
    return str(value).lower() if isinstance(value, bool) else _text(row, name)


def _shortened(pattern: Pattern, lengths: Mapping[str, int], over: int) -> dict[str, int]:
    """The lengths of columns after `over` tokens were taken away."""
    left = dict(lengths)
    sides = [
        [part.name for part in side if isinstance(part, Column) and part.may_be_cut]
        for side in (pattern.before, pattern.after)
    ]
    for _ in range(over):
        before, after = (sum(left[name] for name in side) for side in sides)
        side = sides[0] if before > after else sides[1]
        last = next((name for name in reversed(side) if left[name]), None)
        if last is None:
            raise UserError(
                "the pattern leaves no room for its columns; raise examples.max_source_length"
            )
        left[last] -= 1
    return {name: count for name, count in left.items() if count < lengths[name]}
