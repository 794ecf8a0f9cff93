"""The objects in files of examples: JSON lines, a JSON list, a table, or texts side by side.

a.jsonl             {"prompt": ..}\\n{"prompt": ..}      lines 1, 2
b.json              [{"prompt": ..}, {"prompt": ..}]    items 1, 2
c.tsv               prompt\\tlabel\\nhi\\tgood          {"prompt": "hi", "label": "good"} is line 2
d.source, d.target  a text a line each                  {"source": .., "target": ..}, line 1
"""

import dataclasses
import glob
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

from glm_jax.data.documents import LOOKED_AT, Skipped, check_beginning
from glm_jax.errors import UserError

_ENDS = (".jsonl", ".json", ".tsv", ".source")
# A list is held as a whole.
_MOST_BYTES_OF_A_LIST = 2**31
_NAMED = f"{', '.join(_ENDS[:-1])} or {_ENDS[-1]}"


@dataclasses.dataclass(frozen=True)
class Record:
    """What stands on a line.

    Attributes:
      file: number of its file, from 0.
      line: of the file, from 1; of a JSON list, the number of the item.
      values: the object, or whatever JSON stands there.
    """

    file: int
    line: int
    values: object


def example_files(source: str) -> list[Path]:
    """The files that a glob names, sorted.

    Raises:
      UserError: there is none, one has another ending, or a .source has no .target beside it.
    """
    pattern = os.path.expanduser(source)
    names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    files = sorted(Path(name) for name in names if os.path.isfile(name))
    if not files:
        hint = " (a directory; name its files, for example with /*.jsonl)"
        raise UserError(
            f"no file matches data.source={source!r}{hint if os.path.isdir(pattern) else ''}; "
            f"examples are in files that end in {_NAMED}"
        )
    for file in files:
        if file.suffix not in _ENDS:
            beside = "; name the .source files, beside which they are" * (file.suffix == ".target")
            raise UserError(
                f"data.source takes files of examples that end in {_NAMED}; got {str(file)!r}"
                f"{beside}"
            )
        if file.suffix == ".source" and not file.with_suffix(".target").is_file():
            raise UserError(f"there is no {str(file.with_suffix('.target'))!r} beside {file.name}")
    return files


def with_targets(files: list[Path]) -> list[Path]:
    """The files, and behind them what stands beside the .source files."""
    return [*files, *(one.with_suffix(".target") for one in files if one.suffix == ".source")]


def records(files: list[Path], skipped: Skipped) -> Iterator[Record]:
    """The objects of all files, in order.

    Args:
      files: of `example_files`.
      skipped: lines that are not UTF-8 or not JSON are left out and counted here.

    Raises:
      UserError: a file cannot be read, or is in another encoding as a whole.
    """
    for number, path in enumerate(files):
        try:
            with path.open("rb") as file:
                check_beginning(path, file.read(LOOKED_AT))
            if path.suffix == ".json":
                listed = _list(path)
            elif path.suffix == ".jsonl":
                listed = _lines(path, skipped)
            else:
                listed = _table(path) if path.suffix == ".tsv" else _pairs(path)
            for line, values in listed:
                yield Record(number, line, values)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error


def _lines(path: Path, skipped: Skipped) -> Iterator[tuple[int, object]]:
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            if not content.strip():
                continue
            try:
                yield line, json.loads(content.decode("utf-8-sig" if line == 1 else "utf-8"))
            except UnicodeDecodeError:
                skipped.add("not UTF-8", lambda at=line: f"{path}:{at}")  # type: ignore[misc]
            except (ValueError, RecursionError):
                skipped.add("not JSON", lambda at=line: f"{path}:{at}")  # type: ignore[misc]


def _list(path: Path) -> Iterator[tuple[int, object]]:
    size = path.stat().st_size
    if size > _MOST_BYTES_OF_A_LIST:
        raise UserError(
            f"{path} has {size:,} bytes, and a list in .json is read as a whole, up to "
            f"{_MOST_BYTES_OF_A_LIST:,}; write it as .jsonl, an object a line"
        )
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {path}: it is not JSON ({error}); objects a line belong into .jsonl"
        ) from error
    if not isinstance(values, list):
        raise UserError(f"{path} must hold a list of objects; got {type(values).__name__}")
    yield from enumerate(values, 1)


def _table(path: Path) -> Iterator[tuple[int, object]]:
    """The rows of a table by the names in its first line; there are no quotation marks."""
    lines = _texts(path)
    names = next(lines, (0, ""))[1].split("\t")
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"{path} line 1 must name each column once; got {names}")
    for line, text in lines:
        values = text.split("\t")
        if not text.strip():
            continue
        if len(values) != len(names):
            raise UserError(
                f"{path} line {line} must have {len(names)} columns, as line 1; it has "
                f"{len(values)}"
            )
        yield line, dict(zip(names, values, strict=True))


def _pairs(path: Path) -> Iterator[tuple[int, object]]:
    other = path.with_suffix(".target")
    for source, target in itertools.zip_longest(_texts(path), _texts(other)):
        if source is None or target is None:
            longer, (line, _) = (other, target) if source is None else (path, source)
            raise UserError(
                f"{path.name} and {other.name} must have as many lines; {longer.name} goes on with "
                f"line {line}"
            )
        texts = {"source": source[1].strip(), "target": target[1].strip()}
        if any(texts.values()):
            yield source[0], texts


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            try:
                text = content.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} line {line} is not UTF-8 ({error.reason})") from error
            yield line, text.rstrip("\r\n")
