"""The examples of a task file: lines of JSON, their columns, and prompts with columns in them."""

import dataclasses
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from glm_jax.errors import UserError, did_you_mean, short
from glm_jax.json_files import parse_object

# A line of a file: where it stands, "reviews.jsonl, line 3", and its columns.
Line = tuple[str, Mapping[str, object]]


@dataclasses.dataclass(frozen=True)
class Example:
    """An example before any model has seen it.

    Attributes:
      where: it comes from, "reviews.jsonl, line 3".
      prompt: with the columns in it; of a perplexity the text.
      references: right answers.
      choices: to choose from.
      right: the index of the right one.
      messages: of a chat.
      inserted: the columns in the prompt, which hold no special tokens.
    """

    where: str
    prompt: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int = 0
    messages: tuple[Mapping[str, object], ...] = ()
    inserted: tuple[str, ...] = ()

    def content(self) -> dict[str, object]:
        """What makes two examples the same, wherever they stand."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "where"}


def read_lines(path: Path, count: int | None = None) -> list[Line]:
    """The first lines of a JSONL file; empty lines are passed over.

    Raises:
      UserError: it cannot be read, holds nothing, or a line is no JSON object; names the line.
    """
    found: list[Line] = []
    for number, text in _texts(path):
        if count is not None and len(found) == count:
            break
        where = f"{path}, line {number}"
        found.append((where, parse_object(text, where)))
    if not found:
        raise UserError(f"{path} holds no examples; a line is a JSON object")
    return found


def read_text(path: Path) -> str:
    """The whole text of a file.

    Raises:
      UserError: it cannot be read, or holds nothing.
    """
    text = _read(path)
    if not text.strip():
        raise UserError(f"{path} holds no text")
    return text


def column(line: Line, name: str) -> object:
    """A column of a line.

    Raises:
      UserError: there is none of that name.
    """
    where, values = line
    if name not in values:
        raise UserError(
            f"{where}: no column {name!r}{did_you_mean(name, values)}; there are "
            f"{', '.join(map(repr, values)) or 'none'}"
        )
    return values[name]


def texts_in(line: Line, name: str) -> tuple[str, ...]:
    """A column that holds a text, or a list of texts.

    Raises:
      UserError: it holds something else, or an empty list.
    """
    value = column(line, name)
    several = value if isinstance(value, list) else [value]
    texts = tuple(_as_text(one) for one in several)
    if not texts or None in texts:
        raise UserError(
            f"{line[0]}: {name!r} must be a text, or a list of texts; got {short(value)}"
        )
    return tuple(text for text in texts if text is not None)


def text_in(line: Line, name: str) -> str:
    """A column that holds a text or a number; errors as of `texts_in`."""
    value = column(line, name)
    text = _as_text(value)
    if text is None:
        raise UserError(f"{line[0]}: {name!r} must be a text; got {short(value)}")
    return text


def render(line: Line, template: str) -> tuple[str, tuple[str, ...]]:
    """A prompt with the columns of a line in it, and these.

        ({"text": "Good."}, "{text} It was [MASK].")  ->  "Good. It was [MASK].", ("Good.",)

    Raises:
      UserError: a column that there is not, or that holds no text.
    """
    parts, inserted = [], []
    for literal, name in _parts(template):
        parts.append(literal)
        if name is not None:
            inserted.append(text_in(line, name))
            parts.append(inserted[-1])
    return "".join(parts), tuple(inserted)


def check_template(template: str, name: str) -> None:
    """Refuses a prompt whose braces hold no names of columns.

    Raises:
      UserError: names the file and what is wrong with it.
    """
    try:
        _parts(template)
    except ValueError as error:
        raise UserError(
            f"{name}: the prompt {short(template)} has braces that hold no column ({error}); "
            "a brace itself is written twice"
        ) from error


def _parts(template: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the name of the column behind it."""
    found = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        if name is not None and (not name or form or conversion):
            raise ValueError("a name alone stands in braces")
        found.append((literal, name))
    return found


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    return str(value) if isinstance(value, str | int | float) else None


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(_read(path).split("\n"), 1):
        if text.strip():
            yield number, text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 ({error.reason})") from error


def as_json(values: Sequence[Mapping[str, object]]) -> str:
    """Examples as one text, to be hashed."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True)
