"""BERT's uncased word pieces, the tokenizer of the English GLM of 110 M and 335 M parameters.

"It's naïve"  ->  it ' s naive                      lower case, no accents, punctuation split off
unaffable     ->  un ##aff ##able                   the longest piece first
"""

import unicodedata
from collections.abc import Sequence

_LONGEST_WORD = 100
# Blocks of Chinese characters; each character is a word.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPieces:
    """Text to ids and back by a list of pieces; a word that they do not spell becomes [UNK].

    Attributes:
      pieces: the pieces by id.
    """

    def __init__(self, pieces: Sequence[str], unknown: int):
        """Args:
        pieces: the pieces by id; "##ing" can only continue a word.
        unknown: the id of [UNK].
        """
        self.pieces = list(pieces)
        self._id_of = {piece: id_ for id_, piece in enumerate(pieces)}
        self._unknown = unknown

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return [id_ for word in words(text) for id_ in self._pieces_of(word)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, with a space between words."""
        return " ".join(self.pieces[id_] for id_ in ids).replace(" ##", "")

    def _pieces_of(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._unknown]
        ids, start = [], 0
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:stop]
                if piece in self._id_of:
                    ids.append(self._id_of[piece])
                    start = stop
                    break
            else:
                return [self._unknown]
        return ids


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case and without accents."""
    spaced = "".join(map(_spaced, text))
    stripped = unicodedata.normalize("NFD", spaced.lower())
    apart = (
        f" {char} " if _is_mark(char) else char
        for char in stripped
        if unicodedata.category(char) != "Mn"
    )
    return "".join(apart).split()


def _spaced(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if char == "\ufffd" or unicodedata.category(char).startswith("C"):
        return ""
    if any(low <= ord(char) <= high for low, high in _CHINESE):
        return f" {char} "
    return char


def _is_mark(char: str) -> bool:
    # In ASCII everything counts that is neither letter, digit nor space, "$", "+" and "^" too.
    if "!" <= char <= "~":
        return not char.isalnum()
    return unicodedata.category(char).startswith("P")
