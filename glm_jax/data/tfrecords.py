"""TFRecord files of tf.train.Examples, read without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of that, the data and a checksum of it
(4 bytes each). The data is a protocol buffer, of which only one path is followed:

    Example {1: Features {1: map entry {1: key, 2: Feature {1: BytesList {1: value}}}}}

The checksums are not looked at; a length that leads out of the file is.
"""

import struct
from collections.abc import Iterator

_HEADER, _FOOTER = 12, 4
_LENGTH = struct.Struct("<Q")
# Wire types of a protocol buffer.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def records(content: memoryview) -> Iterator[tuple[int, int]]:
    """Where the data of each record begins and ends; the last one may be cut off.

        [12 bytes of data]  ->  (12, 24)

    Args:
      content: of the whole file.

    Raises:
      ValueError: a length leads out of the file; what came before was whole.
    """
    place = 0
    while place < len(content):
        if place + _HEADER > len(content):
            raise ValueError("cut off")
        start = place + _HEADER
        (length,) = _LENGTH.unpack_from(content, place)
        place = start + length + _FOOTER
        if place > len(content):
            raise ValueError("cut off")
        yield start, start + length


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
