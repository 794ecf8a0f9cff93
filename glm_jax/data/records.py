"""Files with one text per record: JSON lines, and TFRecords of tf.train.Examples."""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

from glm_jax.data.tfrecords import example_text, records


def read_records(path: Path, kind: str) -> Iterator[tuple[int, int, bytes | ValueError]]:
    """The records of a file of `kind`, "json" or "tfrecord".

    Returns:
      Per record, the first and last + 1 byte in the file, and the content, or a ValueError with the
      reason why there is none. The content of an empty JSON line is empty.
    """
    if kind == "json":
        start = 0
        with path.open("rb") as stream:
            for line in stream:
                yield start, start + len(line), line.strip()
                start += len(line)
        return
    if path.stat().st_size == 0:
        return
    with path.open("rb") as stream:
        content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    for start, end, trouble in records(content):
        yield start, end, bytes(content[start:end]) if trouble is None else ValueError(trouble)


def record_text(content: bytes, kind: str, key: str) -> str:
    """The text of a record under its key.

    Raises:
      ValueError: with the reason why there is none.
    """
    return checked(_json_text(content, key) if kind == "json" else example_text(content, key))


def checked(text: str) -> str:
    """The text itself.

    Raises:
      ValueError: it holds NULs, so it is binary data or text in another encoding.
    """
    if "\0" in text:
        raise ValueError("with NULs")
    return text


def _json_text(line: bytes, key: str) -> str:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"without text under {key!r}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell a lone surrogate, which UTF-8 text cannot hold.
        raise ValueError("with half a character") from None
    return text
