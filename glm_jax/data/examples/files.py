"""The objects in files of examples: JSON lines, or a JSON list of them.

a.jsonl   {"prompt": ..}\\n{"prompt": ..}      lines 1, 2
b.json    [{"prompt": ..}, {"prompt": ..}]    items 1, 2
"""

import dataclasses
import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path

from glm_jax.data.documents import LOOKED_AT, Skipped, check_beginning
from glm_jax.errors import UserError

_ENDS = (".jsonl", ".json")
# A list is held as a whole.
_MOST_BYTES_OF_A_LIST = 2**31


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
      UserError: there is none, or one is neither .jsonl nor .json.
    """
    pattern = os.path.expanduser(source)
    names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    files = sorted(Path(name) for name in names if os.path.isfile(name))
    if not files:
        hint = " (a directory; name its files, for example with /*.jsonl)"
        raise UserError(
            f"no file matches data.source={source!r}{hint if os.path.isdir(pattern) else ''}; "
            "examples are in .jsonl or .json files"
        )
    for file in files:
        if file.suffix not in _ENDS:
            raise UserError(
                f"data.source takes files of examples that end in {' or '.join(_ENDS)}; got "
                f"{str(file)!r}"
            )
    return files


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
            listed = _list(path) if path.suffix == ".json" else _lines(path, skipped)
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
