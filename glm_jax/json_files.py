"""JSON files that others wrote: read within limits, refused in one sentence.

    config.json of a directory from anywhere  ->  {"num_layers": 28, ...}  or a UserError

Python's own reader takes a list for an object, follows brackets until its stack is full, and of a
key that stands there twice keeps the last.
"""

import json
from pathlib import Path
from typing import Any

from glm_jax.errors import UserError

# Far above what a model's files have: an index of a million tensors; three levels.
MAX_BYTES = 100 * 2**20
MAX_DEPTH = 100


# A JSON object, of any file. `Any`: a reader takes the values that it knows by key and checks those
# (`glm_jax.checks`); of a recursive union each use would have to be narrowed at every level first.
JsonObject = dict[str, Any]


def read_object(path: Path) -> JsonObject:
    """The JSON object in a file.

    Raises:
      UserError: it cannot be read, is no JSON object, is larger than `MAX_BYTES`, is nested deeper
        than `MAX_DEPTH`, or gives one key two values.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path} has {size:,} bytes; a file of its kind has at most {MAX_BYTES:,}"
            )
        return parse_object(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 ({error.reason})") from error


def parse_object(text: str, name: str) -> JsonObject:
    """`read_object` of a text.

    Args:
      text: of the file.
      name: how errors call it.
    """
    too_deep = UserError(f"cannot read {name}: it is nested deeper than {MAX_DEPTH} levels")
    try:
        values = json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:
        raise UserError(f"cannot read {name}: {error}") from error
    except RecursionError:
        raise too_deep from None
    if _is_deeper(values, MAX_DEPTH):
        raise too_deep
    if not isinstance(values, dict):
        raise UserError(f"{name} must hold a JSON object; got {type(values).__name__}")
    return values


def shown(value: object) -> str:
    """A value from a file, as it stands in a message: of one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def printable(name: str) -> str:
    """A name from a file, without what would break a line or colour a terminal."""
    return name if name.isprintable() and len(name) <= 200 else shown(name)


def some(names: list[str]) -> str:
    """The first names of a list, for a message: "a, b, c, d, e and 7 more"."""
    text = ", ".join(map(printable, names[:5])) or "none"
    return f"{text} and {len(names) - 5} more" if len(names) > 5 else text


def _without_doubles(pairs: list[tuple[str, object]]) -> JsonObject:
    values = dict(pairs)
    if len(values) < len(pairs):
        for key, value in pairs:
            if values[key] != value:
                raise ValueError(f"{shown(key)} has two values, {shown(value)} and others")
    return values


def _is_deeper(values: object, levels: int) -> bool:
    """Whether lists and objects lie in one another beyond so many levels."""
    level = [values]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)
