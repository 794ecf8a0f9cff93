"""TFRecord files of tf.train.Examples, read without TensorFlow.

    length    checksum of it   data             checksum of it
    8 bytes   4                `length` bytes   4

Numbers are little endian; the checksums are masked CRC-32C. The data is a protocol buffer, of which
only this path is read:

    Example {1: Features {1: map entry {1: key, 2: Feature {1: BytesList {1: value}}}}}
"""

from collections.abc import Iterator

import numpy as np

from glm_jax.data.crc32c import crc32c, crc32c_of_windows, masked

_LENGTH, _HEADER, _FOOTER = 8, 12, 4
# Checksums are computed together for at most so many records, or so many bytes.
_RECORDS, _BYTES_AHEAD = 1 << 14, 1 << 24
# Bytes searched at once for the next record after a damaged length.
_SEARCHED = 1 << 16
# Wire types of a protocol buffer.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def records(content: memoryview) -> Iterator[tuple[int, int, str | None]]:
    """The byte range of each record's data, and what is wrong with it.

        [12 bytes of data]  ->  (12, 24, None)

    Args:
      content: of the whole file.

    Returns:
      Per record, the first and last + 1 byte, and None or the reason to skip it: "with a wrong
      checksum", "with a damaged length" (the range reaches to the next record that can be found) or
      "cut off" (at the end of the file).
    """
    data = np.frombuffer(content, np.uint8)
    offset = 0
    while offset < len(data):
        offsets, sizes = _headers(content, offset)
        good = _matches(data, offsets, np.full(len(offsets), _LENGTH), offsets + _LENGTH)
        whole = len(good) if good.all() else int(np.argmin(good))
        starts = offsets[:whole] + _HEADER
        ends = starts + sizes[:whole]
        inside = ends + _FOOTER <= len(data)
        kept = whole if inside.all() else int(np.argmin(inside))
        right = _matches(data, starts[:kept], sizes[:kept], ends[:kept])
        for index in range(kept):
            reason = None if right[index] else "with a wrong checksum"
            yield int(starts[index]), int(ends[index]), reason
        offset = int(ends[kept - 1]) + _FOOTER if kept else offset
        if kept < whole or offset + _HEADER > len(data) > offset:
            yield offset, len(data), "cut off"
            return
        if whole < len(good):
            found = _next_record(data, offset + 1)
            yield offset, found, "with a damaged length"
            offset = found


def _headers(content: memoryview, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [n] of the next records and the lengths in their headers; neither is verified."""
    offsets: list[int] = []
    sizes: list[int] = []
    stop = min(len(content), offset + _BYTES_AHEAD)
    while offset < stop and offset + _HEADER <= len(content) and len(offsets) < _RECORDS:
        size = int.from_bytes(content[offset : offset + _LENGTH], "little")
        offsets.append(offset)
        sizes.append(min(size, len(content)))  # enough to leave the content
        offset += _HEADER + sizes[-1] + _FOOTER
    return np.array(offsets, np.int64), np.array(sizes, np.int64)


def _matches(
    data: np.ndarray, starts: np.ndarray, sizes: np.ndarray, checksums: np.ndarray
) -> np.ndarray:
    """[n] bool: whether byte ranges have the checksums stored at the offsets `checksums`."""
    held = np.ascontiguousarray(data[checksums[:, None] + np.arange(4)]).view("<u4")[:, 0]
    return masked(crc32c(data, starts, sizes)) == held


def _next_record(data: np.ndarray, start: int) -> int:
    """The offset of the next length with a valid checksum; the end of the file if there is none."""
    while start + _HEADER <= len(data):
        part = data[start : start + _SEARCHED + _HEADER - 1]
        found = crc32c_of_windows(part[: len(part) - 4], _LENGTH)
        held = np.lib.stride_tricks.sliding_window_view(part[_LENGTH:], 4)
        for offset in np.flatnonzero(masked(found) == np.ascontiguousarray(held).view("<u4")[:, 0]):
            size = int.from_bytes(part[offset : offset + _LENGTH].tobytes(), "little")
            if start + int(offset) + _HEADER + size + _FOOTER <= len(data):
                return start + int(offset)
        start += len(part) - _HEADER + 1
    return len(data)


def example_text(data: bytes, key: str) -> str:
    """The text under a key of a serialised tf.train.Example.

    Raises:
      ValueError: with the reason why there is none.
    """
    wanted = key.encode()
    try:
        for features in _fields(data, 1):
            for entry in _fields(features, 1):
                if b"".join(_fields(entry, 1)) != wanted:
                    continue
                values = [
                    v for f in _fields(entry, 2) for b in _fields(f, 1) for v in _fields(b, 1)
                ]
                if len(values) == 1:
                    return _text(values[0])
    except (IndexError, TypeError):
        raise ValueError("not a tf.train.Example") from None
    raise ValueError(f"without text under {key!r}")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _fields(data: bytes, number: int) -> Iterator[bytes]:
    """The values of a field that holds bytes or a message.

    Raises:
      IndexError: not a protocol buffer.
    """
    offset = 0
    while offset < len(data):
        tag, offset = _varint(data, offset)
        kind = tag & 7
        if kind == _VARINT:
            _, offset = _varint(data, offset)
        elif kind == _BYTES:
            size, offset = _varint(data, offset)
            if offset + size > len(data):
                raise IndexError
            if tag >> 3 == number:
                yield data[offset : offset + size]
            offset += size
        elif kind in (_FIXED64, _FIXED32):
            offset += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError
    if offset > len(data):
        raise IndexError


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """A number of seven bits per byte, lowest bits first, and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset
        if shift > 63:
            raise IndexError
