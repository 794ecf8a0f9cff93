"""The documents of a corpus: an index of their locations, made in one pass over the files.

my.txt                      documents          split by the hash of their text
    In the beginning            "In the beginning\\nGod created"     train
    God created                 "The light was good"                eval
                            <- an empty line ends a document
    The light was good
"""

import contextlib
import dataclasses
import functools
import hashlib
import lzma
import mmap
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from glm_jax.config.data import DataConfig
from glm_jax.data.cutting import parts, tidy
from glm_jax.data.records import checked, read_records, record_text
from glm_jax.data.store_path import file_kind, source_files
from glm_jax.errors import UserError

SPLITS = ("train", "eval")

# The number of skipped lines that a warning names per reason.
NAMED_LINES = 3

_EMPTY_LINE = re.compile(rb"\n[ \t\r]*(?=\n)")

# The first bytes of text in other encodings, and of files that are no text.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b\x08": "compressed (gzip)",
}
_UTF8_MARK = b"\xef\xbb\xbf"
# Bytes inspected at the beginning of a file; a larger share of NULs than this means binary data.
LOOKED_AT, _MOST_NULS = 1 << 16, 0.05


@dataclasses.dataclass
class Skipped:
    """The lines that were left out, and why.

    Attributes:
      noun: "line", or "record" for a TFRecord file.
      counts: number of lines by reason.
      lines: the first few of each reason, as "file:line".
    """

    noun: str = "line"
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    lines: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, name: Callable[[], str]) -> None:
        """Counts a line; `name` gives its "file:line" and is called only if it is needed."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self.counts[reason] <= NAMED_LINES:
            self.lines.setdefault(reason, []).append(name())

    def summary(self) -> str:
        """`"skipped 3 lines: 2 not UTF-8 (a.txt:3, b.txt:17), 1 not JSON (c.jsonl:1)"`, or ""."""
        total = sum(self.counts.values())
        if not total:
            return ""
        parts = []
        for reason, count in self.counts.items():
            named = ", ".join(self.lines[reason])
            more = ", .." if count > len(self.lines[reason]) else ""
            parts.append(f"{count} {reason} ({named}{more})")
        return f"skipped {total} {self.noun}{'s' if total > 1 else ''}: {', '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The locations of the N documents of a corpus.

    Attributes:
      files: the files, in order.
      text_field: key of the text in JSON lines and tf.train.Examples.
      locations: [N, 5] int64: file, first and last + 1 byte in it, and for a document in a record,
        first and last + 1 byte within the record's text in UTF-8.
      is_eval: [N] bool, which documents belong to the split "eval".
      skipped: lines that were left out.
    """

    files: list[Path]
    text_field: str
    locations: np.ndarray
    is_eval: np.ndarray
    skipped: Skipped

    @property
    def single(self) -> bool:
        """Whether the corpus is a single document, which both splits share."""
        return len(self.locations) == 2 and bool((self.locations[0] == self.locations[1]).all())

    def indices(self, split: str) -> np.ndarray:
        """The documents of a split, ascending int64."""
        return np.flatnonzero(self.is_eval == (split == "eval"))

    def read(self, index: int) -> str:
        """The text of a document.

        Raises:
          UserError: its file can no longer be read.
        """
        file, start, end, first, last = (int(value) for value in self.locations[index])
        path = self.files[file]
        if path.suffix == ".xz":
            content = _unpacked(path)[start:end]
        else:
            try:
                with path.open("rb") as stream:
                    stream.seek(start)
                    content = stream.read(end - start)
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
        kind = file_kind(path)
        if kind == "text":
            return _decode(content)[0]
        text = record_text(content, kind, self.text_field).encode()
        return tidy(text[first:last].decode())


def scan(data: DataConfig) -> Corpus:
    """Reads every file of `data.source` once and finds the documents in it.

    These are left out and counted: lines that are not UTF-8 or hold NULs, JSON lines without a text
    under `data.text_field`, records with a wrong checksum, and records that are not a
    tf.train.Example with a text under `data.text_field`. A document's split depends only on its
    text. If that leaves a split empty, it gets the document whose hash is nearest to the border. A
    single document belongs to both splits.

    Raises:
      ValueError: no file matches, a file cannot be read or is in another encoding as a whole, or
        there is no text in them.
    """
    files = source_files(data)
    skipped = Skipped("record" if file_kind(files[0]) == "tfrecord" else "line")
    locations = array("q")
    hashes = array("Q")
    for number, path in enumerate(files):
        documents = _text_documents if file_kind(path) == "text" else _record_documents
        try:
            for location, text in documents(path, data.text_field, skipped):
                locations.extend((number, *location))
                hashes.append(content_hash(text))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not hashes:
        why = skipped.summary()
        raise UserError(
            f"empty corpus: no text in the {len(files)} file(s) of data.source={data.source!r}"
            + (f"; {why}" if why else "")
        )
    table = np.array(locations, np.int64).reshape(-1, 5)
    table, is_eval = _with_split(table, np.array(hashes, np.uint64), data.eval_fraction)
    return Corpus(files, data.text_field, table, is_eval, skipped)


def _with_split(
    locations: np.ndarray, hashes: np.ndarray, eval_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Adds `is_eval` [N]; a single document comes twice."""
    if len(hashes) == 1:
        return np.repeat(locations, 2, axis=0), np.array([False, True])
    return locations, held_out(hashes, eval_fraction)


def held_out(hashes: np.ndarray, eval_fraction: float) -> np.ndarray:
    """[N] bool, which contents are held out: hash / 2^64 below the fraction.

    Each split gets one at least.

    Args:
      hashes: [N] uint64, of the contents (`content_hash`); N at least 2.
      eval_fraction: `data.eval_fraction`.
    """
    is_eval = hashes / 2.0**64 < eval_fraction
    if not is_eval.any():
        is_eval[np.argmin(hashes)] = True
    if is_eval.all():
        is_eval[np.argmax(hashes)] = False
    return is_eval


def content_hash(text: str) -> int:
    """The hash of a content that decides its split, below 2^64."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


# First and last + 1 byte in the file, then within the text of a record (0, 0 in plain text).
Location = tuple[int, int, int, int]
Located = tuple[Location, str]  # and the text of the document


def _text_documents(path: Path, text_field: str, skipped: Skipped) -> Iterator[Located]:
    """Documents of a plain text file; empty lines separate them."""
    content = _content(path)
    if path.suffix != ".xz":
        check_beginning(path, content[:LOOKED_AT])
    if content.find(b"\n") < 0 <= content.find(b"\r"):
        content = content[:].replace(b"\r", b"\n")  # old Macintosh line ends
    begin = len(_UTF8_MARK) if content[: len(_UTF8_MARK)] == _UTF8_MARK else 0
    for end in _ends(content):
        for start, stop in parts(content, begin, end):
            text, bad_lines = _decode(content[start:stop])
            for offset, reason in bad_lines:
                skipped.add(reason, functools.partial(_line_name, path, content, start + offset))
            if text:
                yield (start, stop, 0, 0), text
        begin = end


def check_beginning(path: Path, beginning: bytes) -> None:
    """Refuses a file that is not UTF-8 text as a whole."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            raise UserError(
                f"{str(path)!r} is {encoding}; data.source takes text in UTF-8 and records that "
                "are not compressed, so convert it first"
            )
    if beginning.count(0) > _MOST_NULS * len(beginning):
        raise UserError(
            f"{str(path)!r} is full of NUL bytes, as UTF-16 and binary files are; data.source "
            "takes text in UTF-8, so convert it first"
        )


def _line_name(path: Path, content: bytes | mmap.mmap, offset: int) -> str:
    return f"{path}:{content[:offset].count(10) + 1}"


def _content(path: Path) -> bytes | mmap.mmap:
    if path.suffix == ".xz":
        return _unpacked(path)
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


@functools.lru_cache(maxsize=4)
def _unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def _ends(content: bytes | mmap.mmap) -> Iterator[int]:
    """The ends of documents, including the last one."""
    for match in _EMPTY_LINE.finditer(content):
        yield match.end()
    yield len(content)


def _decode(content: bytes) -> tuple[str, list[tuple[int, str]]]:
    """The text of the valid lines, and (offset, reason) of each other line."""
    with contextlib.suppress(UnicodeDecodeError):
        if b"\0" not in content:
            return tidy(content.decode("utf-8")), []
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    lines, bad_lines = [], []
    offset = 0
    for line in content.split(b"\n"):
        try:
            lines.append(checked(line.decode("utf-8")))
        except UnicodeDecodeError:
            bad_lines.append((offset, "not UTF-8"))
        except ValueError as error:
            bad_lines.append((offset, str(error)))
        offset += len(line) + 1
    return tidy("\n".join(lines)), bad_lines


def _record_documents(path: Path, text_field: str, skipped: Skipped) -> Iterator[Located]:
    """Documents of a file with one text per record."""
    kind = file_kind(path)
    with path.open("rb") as file:
        beginning = file.read(LOOKED_AT)
    if kind == "json" or beginning.startswith(b"\x1f\x8b\x08"):
        check_beginning(path, beginning)
    for number, (start, end, content) in enumerate(read_records(path, kind), 1):
        try:
            if isinstance(content, ValueError):
                raise content
            empty = kind == "json" and not content
            text = b"" if empty else record_text(content, kind, text_field).encode()
        except ValueError as error:
            skipped.add(str(error), functools.partial("{}:{}".format, path, number))
            continue
        for first, last in parts(text, 0, len(text)):
            part = tidy(text[first:last].decode())
            if part:
                yield (start, end, first, last), part
