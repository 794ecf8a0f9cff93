"""Byte pair encoding as in GPT-2 and RoBERTa: bytes are joined in the order of a list of merges.

    "low lower"  ->  words "low", " lower"  ->  l o w, Ġ l o w e r  ->  low, Ġlow er

Each byte is written as one printable character ("Ġ" is the space), so that merges are lines of
text.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence

_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)")
# GPT-2's expression ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, on a text in which each
# character is replaced by its kind, since the standard library has no \p: L letter, N number,
# B space, S other white space, O other.
_WORD = re.compile(r"B?L+|B?N+|B?O+|[SB]+(?![LNO])|[SB]+")


@functools.cache
def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte: its own, or else one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    return characters | {byte: chr(256 + index) for index, byte in enumerate(others)}


class BytePairs:
    """Text to ids and back."""

    def __init__(
        self, ids: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: int | None = None
    ):
        """Args:
        ids: the id of each piece.
        merges: pairs of pieces, in the order in which they are joined.
        unknown: the id of pieces without an id; None: they are left out.
        """
        self._ids, self._unknown = dict(ids), unknown
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._piece_of = {id_: piece for piece, id_ in ids.items()}
        self._byte_of = {character: byte for byte, character in byte_characters().items()}
        self._cached = functools.lru_cache(1 << 16)(self._ids_of)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return [id_ for word in words(text) for id_ in self._cached(word)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, id_: int) -> bytes:
        """The bytes of an id; empty if no piece has the id."""
        piece = self._piece_of.get(id_, "")
        if any(character not in self._byte_of for character in piece):
            return piece.encode()
        return bytes(self._byte_of[character] for character in piece)

    def _ids_of(self, word: str) -> tuple[int, ...]:
        parts = [byte_characters()[byte] for byte in word.encode("utf-8", errors="surrogatepass")]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined, index = [], 0
            while index < len(parts):
                if index + 1 < len(parts) and (parts[index], parts[index + 1]) == best:
                    joined.append(parts[index] + parts[index + 1])
                    index += 2
                else:
                    joined.append(parts[index])
                    index += 1
            parts = joined
        found = [self._ids.get(part, self._unknown) for part in parts]
        return tuple(id_ for id_ in found if id_ is not None)


def words(text: str) -> list[str]:
    """Splits a text into words as GPT-2 does: ["It", "'s", " 3", ".", "5", " ", " there"]."""
    kinds = "".join(map(_kind, text))
    found, start = [], 0
    while start < len(text):
        match = _CONTRACTION.match(text, start) or _WORD.match(kinds, start)
        assert match is not None
        found.append(text[start : match.end()])
        start = match.end()
    return found


def _kind(char: str) -> str:
    if char == " ":
        return "B"
    if char.isspace():
        return "S"
    category = unicodedata.category(char)[0]
    return category if category in "LN" else "O"
