"""TFRecord files of tf.train.Examples, read without TensorFlow.

    length    checksum of it   data             checksum of it
    8 bytes   4                `length` bytes   4

little endian, the checksums CRC-32C, masked. The data is a protocol buffer, of which only one path
is followed:

    Example {1: Features {1: map entry {1: key, 2: Feature {1: BytesList {1: value}}}}}
"""

from collections.abc import Iterator

import numpy as np

from glm_jax.data.crc32c import crc32c, crc32c_of_windows, masked

_LENGTH, _HEADER, _FOOTER = 8, 12, 4
# Records whose checksums are computed together: so many, or so many bytes.
_RECORDS, _BYTES_AHEAD = 1 << 14, 1 << 24
# Bytes that are searched at once for the next record behind a damaged length.
_SEARCHED = 1 << 16
# Wire types of a protocol buffer.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def records(content: memoryview) -> Iterator[tuple[int, int, str | None]]:
    """Where the data of each record begins and ends, and what is wrong with it.

        [12 bytes of data]  ->  (12, 24, None)

    Args:
      content: of the whole file.

    Returns:
      First and last + 1 byte, and None or the reason why the record is not to be read: "with a
      wrong checksum", "with a damaged length" (the bytes up to the next record that can be found)
      or "cut off" (the end of the file).
    """
    data = np.frombuffer(content, np.uint8)
    place = 0
    while place < len(data):
        places, sizes = _headers(content, place)
        good = _matches(data, places, np.full(len(places), _LENGTH), places + _LENGTH)
        whole = len(good) if good.all() else int(np.argmin(good))
        starts = places[:whole] + _HEADER
        ends = starts + sizes[:whole]
        inside = ends + _FOOTER <= len(data)
        kept = whole if inside.all() else int(np.argmin(inside))
        right = _matches(data, starts[:kept], sizes[:kept], ends[:kept])
        for index in range(kept):
            reason = None if right[index] else "with a wrong checksum"
            yield int(starts[index]), int(ends[index]), reason
        place = int(ends[kept - 1]) + _FOOTER if kept else place
        if kept < whole or place + _HEADER > len(data) > place:
            yield place, len(data), "cut off"
            return
        if whole < len(good):
            found = _next_record(data, place + 1)
            yield place, found, "with a damaged length"
            place = found


def _headers(content: memoryview, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the next records begin, [n], and the lengths that they say, neither looked at yet."""
    places: list[int] = []
    sizes: list[int] = []
    stop = min(len(content), place + _BYTES_AHEAD)
    while place < stop and place + _HEADER <= len(content) and len(places) < _RECORDS:
        size = int.from_bytes(content[place : place + _LENGTH], "little")
        places.append(place)
        sizes.append(min(size, len(content)))  # enough to lead out of it
        place += _HEADER + sizes[-1] + _FOOTER
    return np.array(places, np.int64), np.array(sizes, np.int64)


def _matches(
    data: np.ndarray, starts: np.ndarray, sizes: np.ndarray, checksums: np.ndarray
) -> np.ndarray:
    """[n] bool: whether stretches have the checksums that are held at other places."""
    held = np.ascontiguousarray(data[checksums[:, None] + np.arange(4)]).view("<u4")[:, 0]
    return masked(crc32c(data, starts, sizes)) == held


def _next_record(data: np.ndarray, place: int) -> int:
    """Where the next length lies that has its checksum; the file's end where there is none."""
    while place + _HEADER <= len(data):
        part = data[place : place + _SEARCHED + _HEADER - 1]
        found = crc32c_of_windows(part[: len(part) - 4], _LENGTH)
        held = np.lib.stride_tricks.sliding_window_view(part[_LENGTH:], 4)
        for offset in np.flatnonzero(masked(found) == np.ascontiguousarray(held).view("<u4")[:, 0]):
            size = int.from_bytes(part[offset : offset + _LENGTH].tobytes(), "little")
            if place + int(offset) + _HEADER + size + _FOOTER <= len(data):
                return place + int(offset)
        place += len(part) - _HEADER + 1
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
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(data, place)
        elif kind == _BYTES:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise IndexError
            if tag >> 3 == number:
                yield data[place : place + size]
            place += size
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError
    if place > len(data):
        raise IndexError


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise IndexError
