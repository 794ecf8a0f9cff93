"""Cuts long texts into documents, by one rule for every source.

    .. and it was good.\\n| And the evening ..    behind the last line's end of a part's second half
    .. a long line without |an end of its own ..   else behind its last space
    .. 天地玄黃宇宙|洪荒日月 ..                       else between two graphemes

So a book without empty lines gives text to both splits and is never processed in one piece. Sizes
are in bytes of UTF-8: a text gives the same documents as a file, a JSON line or a record.
"""

import mmap
import re
import unicodedata
from collections.abc import Iterator

# The largest document, in bytes of UTF-8.
PART_SIZE = 1 << 16

_SPACES = re.compile(rb"\s*")
_JOINER = "\u200d"
# Characters that belong to the one before them but are no marks (category M) in Unicode: joiners,
# skin tones, tags, two vowels of Thai and Lao, voicing of half-width katakana, jamo after jamo.
_FOLLOWERS = re.compile(
    "[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u0e33\u0eb3\uff9e\uff9f"
    "\u1160-\u11ff\ud7b0-\ud7fb]"
)
_LEADING_JAMO = re.compile("[\u1100-\u115f\ua960-\ua97c]")
_HANGUL = re.compile("[\u1100-\u115f\ua960-\ua97c\uac00-\ud7a3]")
_VIRAMA = 9  # the combining class of a virama, which joins its letter to the next one
# Regional indicators, two of which make a flag; in UTF-8 F0 9F 87 A6 .. BF.
_FLAG = re.compile(rb"\xf0\x9f\x87[\xa6-\xbf]")


def cut(text: str) -> list[str]:
    """The documents of a text, each stripped of surrounding white space; none are empty.

    Args:
      text: without lone surrogates.
    """
    content = text.encode()
    found = (tidy(content[first:last].decode()) for first, last in parts(content, 0, len(content)))
    return [part for part in found if part]


def tidy(text: str) -> str:
    """The text without byte order mark, carriage returns and surrounding white space."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()


def parts(content: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The (start, end) of each part of a text, in bytes.

    Args:
      content: holds the text in UTF-8 at `start` .. `end`; invalid bytes do no harm.

    Returns:
      Ascending ranges without gaps, of at most `PART_SIZE` bytes each; white space around the whole
      text is left out.
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
    # A line's end or a space behind the part is included: `tidy` removes it.
    line = max(content.rfind(b"\n", half, stop + 1), content.rfind(b"\r", half, stop + 1))
    if line >= 0:
        return line + 1
    space = content.rfind(b" ", half, stop + 1)
    while space >= 0:
        if not joined(" ", _character(content, space + 1)):
            return space + 1
        space = content.rfind(b" ", half, space)
    stop = _character_start(content, stop)
    offset = stop
    while offset > half:
        before = _character_start(content, offset - 1)
        if not (
            joined(_character(content, before), _character(content, offset))
            or _within_flag(content, half, offset)
        ):
            return offset
        offset = before
    return stop


def joined(before: str, after: str) -> bool:
    """Whether two neighbouring characters belong to one grapheme; flags are not considered.

        joined("e", "\\u0301") -> True        joined("天", "地") -> False

    Unicode's rules (UAX 29) in short: marks and other characters that never stand alone, joiner
    sequences, conjuncts of Indic letters, and jamo.
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


def _within_flag(content: bytes | mmap.mmap, start: int, offset: int) -> bool:
    """Whether the second half of a flag begins at `offset`: an odd number of halves precedes it."""
    if not _FLAG.match(content, offset):
        return False
    halves = 0
    while offset - 4 >= start and _FLAG.match(content, offset - 4):
        halves, offset = halves + 1, offset - 4
    return halves % 2 == 1


def _character_start(content: bytes | mmap.mmap, offset: int) -> int:
    """The start of the character, of at most 4 bytes, that holds the byte at `offset`."""
    starts = (offset - back for back in range(4) if content[offset - back] & 0xC0 != 0x80)
    return next(starts, offset)


def _character(content: bytes | mmap.mmap, offset: int) -> str:
    return content[offset : offset + 4].decode("utf-8", "replace")[:1]
