"""Changes what a sentencepiece model does with some of its pieces, without protobuf.

A user-defined piece is matched in any text; a control piece has its id and its spelling, and no
text becomes it. The special tokens of ChatGLM-6B are user-defined as published.

    a model, as bytes     [1: [1: "a"   3: NORMAL]        1: [1: "[gMASK]"  3: USER_DEFINED] ..]
    as_control(it, ..)    [1: [1: "a"   3: NORMAL]        1: [1: "[gMASK]"  3: USER_DEFINED
                                                                            3: CONTROL] ..]

Of a field that occurs twice protobuf keeps the last, so the new type is appended.
"""

from collections.abc import Collection, Iterator

_PIECES, _SPELLING, _TYPE = 1, 1, 3
_USER_DEFINED = 4
_CONTROL = b"\x18\x03"  # the field `type` with the value CONTROL

_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


def as_control(model: bytes, spellings: Collection[str]) -> bytes:
    """A serialised model in which these pieces, where they are user-defined, are control pieces.

    Args:
      model: the content of a model file.
      spellings: of the pieces; one that the model does not have is passed over.

    Raises:
      ValueError: not a serialised model.
    """
    wanted = {spelling.encode() for spelling in spellings}
    parts = []
    for number, whole, value in _fields(model):
        if number == _PIECES and isinstance(value, bytes) and _is_wanted(value, wanted):
            piece = value + _CONTROL
            whole = b"\x0a" + _varint(len(piece)) + piece
        parts.append(whole)
    return b"".join(parts)


def _is_wanted(piece: bytes, wanted: Collection[bytes]) -> bool:
    found = {number: value for number, _, value in _fields(piece)}
    return found.get(_TYPE) == _USER_DEFINED and found.get(_SPELLING) in wanted


def _fields(message: bytes) -> Iterator[tuple[int, bytes, int | bytes]]:
    """The fields of a message in their order: number, the bytes of all of it, its value."""
    at = 0
    while at < len(message):
        key, behind = _read_varint(message, at)
        kind = key & 7
        value: int | bytes
        if kind == _VARINT:
            value, end = _read_varint(message, behind)
        elif kind == _SIZED:
            size, start = _read_varint(message, behind)
            end = start + size
            value = message[start:end]
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            end = behind + (8 if kind == _EIGHT_BYTES else 4)
            value = message[behind:end]
        else:
            raise ValueError(f"a field of the wire type {kind}")
        if end > len(message):
            raise ValueError("a field ends behind its message")
        yield key >> 3, message[at:end], value
        at = end


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a byte, and where the next begins."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise ValueError("a number that does not end")


def _varint(value: int) -> bytes:
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
