"""Cloze patterns: a text with one blank and columns, and what stands in the blank for each label.

    pattern      "{hypothesis:bare}" ? [MASK], "{premise}"
    verbalizers  {"entailment": "Yes", "not_entailment": "No"}
    a line       {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}
        ->  "It is wet" ? [MASK], "It rains."        filled with: Yes

Behind a column's name stands what is done to its text, separated by commas: `bare` takes the
punctuation from its end, `lower` makes its first letter small, `whole` keeps it from being cut
where the text is too long. A brace itself is written twice.
"""

import dataclasses
import string
from collections.abc import Mapping

from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.special_tokens import SPELLINGS

# Spellings of a blank.
BLANKS = (SPELLINGS["mask"], SPELLINGS["gmask"], SPELLINGS["smask"])
_CHANGES = ("bare", "lower", "whole")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column in a pattern.

    Attributes:
      name: of the column.
      changes: what is done to its text, names among "bare", "lower" and "whole".
    """

    name: str
    changes: tuple[str, ...] = ()

    @property
    def may_be_cut(self) -> bool:
        return "whole" not in self.changes

    def text_of(self, text: str) -> str:
        """The text as it stands in the pattern."""
        if "bare" in self.changes:
            text = text.rstrip().rstrip(string.punctuation)
        if "lower" in self.changes:
            text = text[:1].lower() + text[1:]
        return text


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A pattern, read.

    Attributes:
      before, after: what stands on each side of the blank: literal texts and columns.
      blank: the spelling of the blank.
    """

    before: tuple[str | Column, ...]
    blank: str
    after: tuple[str | Column, ...]

    @property
    def columns(self) -> list[Column]:
        """The columns, in order."""
        return [part for part in (*self.before, *self.after) if isinstance(part, Column)]


def read_pattern(text: str, name: str = "examples.pattern") -> Pattern:
    """Reads a pattern.

        read_pattern("{text} It was [MASK].")
            -> Pattern((Column("text"), " It was "), "[MASK]", (".",))

    Raises:
      UserError: no blank or several, no column, braces without a name, or an unknown change.
    """
    sides: list[list[str | Column]] = [[]]
    blanks: list[str] = []
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UserError(
            f"{name}: the braces of {short(text)} do not fit ({error}); a brace itself is written "
            "twice"
        ) from error
    for literal, column, form, conversion in found:
        for index, part in enumerate(_around_blanks(literal)):
            if index % 2:
                blanks.append(part)
                sides.append([])
            elif part:
                sides[-1].append(part)
        if column is not None:
            sides[-1].append(_column(column, form or "", conversion, name))
    if len(blanks) != 1:
        raise UserError(
            f"{name} must have one blank, {' or '.join(BLANKS)}; {short(text)} has {len(blanks)}"
        )
    pattern = Pattern(tuple(sides[0]), blanks[0], tuple(sides[1]))
    if not pattern.columns:
        raise UserError(f"{name} must have a column in braces, {{text}}; got {short(text)}")
    return pattern


def _around_blanks(literal: str) -> list[str]:
    """Texts and the blanks between them, in turns: "a [MASK] b" -> ["a ", "[MASK]", " b"]."""
    parts = [literal]
    for blank in BLANKS:
        split: list[str] = []
        for index, part in enumerate(parts):
            if index % 2:
                split.append(part)
                continue
            for number, piece in enumerate(part.split(blank)):
                split += [blank, piece] if number else [piece]
        parts = split
    return parts


def _column(name: str, form: str, conversion: str | None, where: str) -> Column:
    changes = tuple(one.strip() for one in form.split(",")) if form else ()
    if not name or conversion:
        raise UserError(f"{where}: braces hold the name of a column; got {{{name}{form}}}")
    for change in changes:
        if change not in _CHANGES:
            raise UserError(
                f"{where}: {{{name}:{form}}} asks for {change!r}{did_you_mean(change, _CHANGES)}; "
                f"there are {', '.join(_CHANGES)}"
            )
    return Column(name, changes)


@dataclasses.dataclass(frozen=True)
class NamedPattern:
    """A published pattern.

    Attributes:
      pattern: its text; for COPA one per question, by the column that `by` names.
      verbalizers: of labels; None: the answer is the text in the column "answer".
      by: a column whose value picks among several patterns.
    """

    pattern: str | Mapping[str, str]
    verbalizers: Mapping[str, str] | None = None
    by: str | None = None


_YES_NO = {"true": "Yes", "false": "No"}
_ENTAILMENT = {"entailment": "Yes", "not_entailment": "No"}
_THREE = {"entailment": "Yes", "contradiction": "No", "neutral": "Maybe"}
_NLI = (
    '"{hypothesis:bare}" ? [MASK], "{premise}"',
    "{hypothesis:bare}? [MASK], {premise}",
    '"{hypothesis:bare}" ? [MASK]. "{premise}"',
    "{hypothesis:bare}? [MASK]. {premise}",
)
_CHOICES = '"{choice1:bare,lower,whole}" or "{choice2:bare,lower,whole}"? {premise:bare}'
_BARE_CHOICES = "{choice1:bare,lower,whole} or {choice2:bare,lower,whole}? {premise:bare}"
_WSC = "'*{pronoun:whole}*'"

# The patterns of SuperGLUE (github.com/THUDM/GLM, tasks/superglue/pvp.py, after PET,
# arXiv:2009.07118), by task: number 0 is the default of the published recipes.
NAMED: Mapping[str, tuple[NamedPattern, ...]] = {
    "rte": (
        *(NamedPattern(text, _ENTAILMENT) for text in _NLI),
        NamedPattern(
            "{premise} question: {hypothesis:bare} True or False? answer: [MASK]",
            {"entailment": "true", "not_entailment": "false"},
        ),
    ),
    "cb": (
        *(NamedPattern(text, _THREE) for text in _NLI),
        NamedPattern(
            "{premise} question: {hypothesis} true, false or neither? answer: [MASK]",
            {"entailment": "true", "contradiction": "false", "neutral": "neither"},
        ),
    ),
    "boolq": tuple(
        NamedPattern(text, words)
        for text in (
            "{passage} Question: {question}? Answer: [MASK].",
            "{passage} Based on the previous passage, {question}? [MASK].",
            "Based on the following passage  {question}? [MASK]. {passage}",
        )
        for words in (_YES_NO, {"true": "true", "false": "false"})
    ),
    "wic": (
        NamedPattern(
            '"{sentence1}" / "{sentence2}" Similar sense of "{word:whole}"? [MASK].', _YES_NO
        ),
        NamedPattern(
            "{sentence1} {sentence2} Does {word:whole} have the same meaning in both sentences? "
            "[MASK]",
            _YES_NO,
        ),
        NamedPattern(
            '{word:whole} . Sense (1) (a) "{sentence1}" ([MASK]) "{sentence2:whole}"',
            {"true": "b", "false": "2"},
        ),
    ),
    "multirc": tuple(
        NamedPattern(text, words)
        for text, words in (
            (
                "{passage:bare}. Question: {question:bare,whole}? Is it {answer:whole}? [MASK].",
                {"1": "Yes", "0": "No"},
            ),
            (
                "{passage:bare}. Question: {question:bare,whole}? Is the correct answer "
                '"{answer:whole}"? [MASK].',
                {"1": "Yes", "0": "No"},
            ),
            (
                "{passage:bare}. Based on the previous passage, {question:bare,whole}? Is "
                '"{answer:whole}" a correct answer? [MASK].',
                {"1": "Yes", "0": "No"},
            ),
            (
                "{passage:bare} {question:bare,whole}- [ [MASK]]{answer:whole}",
                {"1": "True", "0": "False"},
            ),
        )
    ),
    "copa": tuple(
        NamedPattern(
            {"cause": f"{text} because [MASK].", "effect": f"{text}, so [MASK]."}, None, "question"
        )
        for text in (_CHOICES, _BARE_CHOICES)
    ),
    "wsc": tuple(
        NamedPattern(text)
        for text in (
            f"{{text}} The pronoun {_WSC} refers to [MASK].",
            f"{{text}} In the previous sentence, the pronoun {_WSC} refers to [MASK].",
            f"{{text}} Question: In the passage above, what does the pronoun {_WSC} refer to? "
            "Answer: [MASK].",
        )
    ),
    "record": (NamedPattern("{passage} {query_before:whole} [MASK]{query_after:whole}"),),
}


def named_pattern(name: str) -> tuple[str, NamedPattern] | None:
    """The task and the pattern of a name, "rte" or "rte/4"; None: it is a pattern itself.

    Raises:
      UserError: it is neither.
    """
    if any(blank in name for blank in BLANKS) or "{" in name:
        return None
    task, _, number = name.partition("/")
    if task not in NAMED:
        raise UserError(
            f"examples.pattern must be a text with a blank, '{{text}} It was [MASK].', or the name "
            f"of a pattern{did_you_mean(task, NAMED)}: {', '.join(NAMED)}; got {short(name)}"
        )
    patterns = NAMED[task]
    if number and not (number.isdigit() and int(number) < len(patterns)):
        raise UserError(
            f"examples.pattern: {task} has the patterns 0 to {len(patterns) - 1}; got {short(name)}"
        )
    return task, patterns[int(number or 0)]
