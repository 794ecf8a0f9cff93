"""Where a long text is cut into documents: one rule for every source.

    .. and it was good.\\n| And the evening ..    behind the last line's end of a part's second half
    .. a long line without |an end of its own ..   else behind its last space
    .. 天地玄黃宇宙|洪荒日月 ..                       else between two graphemes

A book without an empty line then gives both splits text, and no step holds all of it. Sizes are in
bytes of UTF-8, so that a text gives the same documents as a file, as a JSON line and as a record.
"""

import mmap
import re
import unicodedata
from collections.abc import Iterator

# The most that a document holds, in bytes of UTF-8.
PART_SIZE = 1 << 16

_SPACES = re.compile(rb"\s*")
_JOINER = "\u200d"
# What belongs to the character before it and is no mark (category M) by Unicode's table: joiners,
# tones of skin, tags, two vowels of Thai and Lao, voicing of half-width katakana, jamo behind jamo.
_FOLLOWERS = re.compile(
    "[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u0e33\u0eb3\uff9e\uff9f"
    "\u1160-\u11ff\ud7b0-\ud7fb]"
)
_LEADING_JAMO = re.compile("[\u1100-\u115f\ua960-\ua97c]")
_HANGUL = re.compile("[\u1100-\u115f\ua960-\ua97c\uac00-\ud7a3]")
_VIRAMA = 9  # its combining class: what it is written under goes on in the next letter
# The letters that two by two make a flag, in UTF-8: F0 9F 87 A6 .. BF.
_FLAG = re.compile(rb"\xf0\x9f\x87[\xa6-\xbf]")


def cut(text: str) -> list[str]:
    """The documents of a text, without the white space around each; none of an empty one.

    Args:
      text: without half surrogates.
    """
    content = text.encode()
    found = (tidy(content[first:last].decode()) for first, last in parts(content, 0, len(content)))
    return [part for part in found if part]


def tidy(text: str) -> str:
    """Without byte order mark, carriage returns and the white space around it."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()


def parts(content: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the parts of a text begin and end.

    Args:
      content: holds the text at `start` .. `end`, in UTF-8; bytes that are not do no harm.

    Returns:
      Ascending and without gaps, of `PART_SIZE` bytes at most; the white space around the text is
      in none of them.
    """
    leading = _SPACES.match(content, start, end)
    start = leading.end() if leading else start
    while start < end and content[end - 1 : end].isspace():
        end -= 1
    while start < end:
        stop = _part_end(content, start, end)
        yield start, stop
        start = stop


def _part_end(content: bytes | mmap.mmap, start: int, end: int) -> int:
    stop, half = start + PART_SIZE, start + PART_SIZE // 2
    if end <= stop:
        return end
    # A line's end or a space that follows the part is taken with it: `tidy` takes it away.
    line = max(content.rfind(b"\n", half, stop + 1), content.rfind(b"\r", half, stop + 1))
    if line >= 0:
        return line + 1
    space = content.rfind(b" ", half, stop + 1)
    while space >= 0:
        if not joined(" ", _character(content, space + 1)):
            return space + 1
        space = content.rfind(b" ", half, space)
    stop = _character_start(content, stop)
    place = stop
    while place > half:
        before = _character_start(content, place - 1)
        if not (
            joined(_character(content, before), _character(content, place))
            or _within_flag(content, half, place)
        ):
            return place
        place = before
    return stop


def joined(before: str, after: str) -> bool:
    """Whether two neighbouring characters are of one grapheme, flags left out.

        joined("e", "\\u0301") -> True        joined("天", "地") -> False

    Unicode's rules (UAX 29) in short: marks and what else never stands alone, sequences with a
    joiner, conjuncts of Indic letters and jamo.
    """
    return bool(
        unicodedata.category(after).startswith("M")
        or _FOLLOWERS.fullmatch(after)
        or before == _JOINER
        or (_LEADING_JAMO.fullmatch(before) and _HANGUL.fullmatch(after))
        or (
            unicodedata.combining(before) == _VIRAMA and unicodedata.category(after).startswith("L")
        )
    )


def _within_flag(content: bytes | mmap.mmap, start: int, place: int) -> bool:
    """Whether a flag's second letter begins at `place`: an odd number of letters stands before."""
    if not _FLAG.match(content, place):
        return False
    letters = 0
    while place - 4 >= start and _FLAG.match(content, place - 4):
        letters, place = letters + 1, place - 4
    return letters % 2 == 1


def _character_start(content: bytes | mmap.mmap, place: int) -> int:
    """The start of the character that holds the byte at `place`: of 4 bytes at most."""
    return next((place - back for back in range(4) if content[place - back] & 0xC0 != 0x80), place)


def _character(content: bytes | mmap.mmap, place: int) -> str:
    return content[place : place + 4].decode("utf-8", "replace")[:1]
