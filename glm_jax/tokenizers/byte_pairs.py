"""Byte pair encoding as in GPT-2 and RoBERTa: bytes are joined in the order of a list of merges.

    "low lower"  ->  words "low", " lower"  ->  l o w, Ġ l o w e r  ->  low, Ġlow er

Each byte is written as one printable character ("Ġ" is the space), so that merges are lines of
text. Hugging Face's `tokenizers` does the joining; it is imported when a vocabulary is read, so
that everything else works where it is not installed.
"""

import functools
from collections.abc import Mapping, Sequence

from glm_jax.errors import UserError, short


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
        self, ids: Mapping[str, int], merges: Sequence[Sequence[str]], unknown: str | None = None
    ):
        """Reads a vocabulary.

        Args:
          ids: the id of each piece.
          merges: pairs of pieces, in the order in which they are joined.
          unknown: the piece whose id stands for pieces without one; None: they are left out.

        Raises:
          UserError: a merge that is no pair, or of pieces without ids; no package `tokenizers`.
        """
        try:
            from tokenizers import Tokenizer, models, pre_tokenizers
        except ImportError as error:
            raise UserError(
                "vocabularies of byte pairs (GPT-2's, RoBERTa's) need the package tokenizers: "
                "pip install tokenizers"
            ) from error
        # The library ends in a panic, which is no `Exception`, where a merge is damaged.
        for pair in merges:
            if len(pair) != 2 or not ids.keys() >= {*pair, "".join(pair)}:
                raise UserError(
                    "each merge must be of two pieces that have an id, as what they become has; "
                    f"got {short(' '.join(pair))}"
                )
        known = {} if unknown is None else {"unk_token": unknown}
        self._coder = Tokenizer(models.BPE(dict(ids), [(a, b) for a, b in merges], **known))
        self._coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._piece_of = {id_: piece for piece, id_ in ids.items()}
        self._byte_of = {character: byte for byte, character in byte_characters().items()}

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return self._coder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_of(self, id_: int) -> bytes:
        """The bytes of an id; empty if no piece has the id."""
        piece = self._piece_of.get(id_, "")
        if any(character not in self._byte_of for character in piece):
            return piece.encode()
        return bytes(self._byte_of[character] for character in piece)
