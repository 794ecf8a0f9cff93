"""Tokens as text, one by one, for log-probabilities.

ids      ▁the  ▁light  <0xE6>  <0x9C>  <0x88>
pieces   " the" " light" "\\ufffd" "\\ufffd" "\\ufffd"
offsets  0     4       10      10      10            of the text that they are together
"""

from collections.abc import Sequence

from glm_jax.tokenizers.protocol import Tokenizer

# JSON has no infinity, and less than this says nothing more.
_LEAST = -9999.0
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def in_json(log_probability: float) -> float:
    """A log-probability in nats as JSON can hold it; that of a model that computes NaN too."""
    return log_probability if log_probability >= _LEAST else _LEAST


class Pieces:
    """The text of single tokens, as they stand behind others."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        # Behind a letter a token has the space in front of it, which decoding drops at the start.
        self._before = tokenizer.encode("a")[-1:]
        self._shown = len(tokenizer.decode(self._before))
        self._known: dict[int, str] = {}

    def text(self, id_: int) -> str:
        """The text of a token; of bytes that are no character, U+FFFD."""
        if id_ not in self._known:
            self._known[id_] = self._tokenizer.decode([*self._before, id_])[self._shown :]
        return self._known[id_]

    def name(self, id_: int) -> str:
        """A text that no other token has: `text`, or of bytes that are no character "token_id:7".

        The tokens that such bytes may be replaced by would all be U+FFFD, and one key.
        """
        text = self.text(id_)
        return f"token_id:{id_}" if _INCOMPLETE in text or not text else text

    def offsets(self, ids: Sequence[int], text: str) -> list[int]:
        """Where each token begins in the text that they are together.

        Tokens that are bytes of one character, or of several, begin where the first of them does.
        """
        found: list[int] = []
        at = 0
        for start, end in self._runs(ids):
            found += [at] * (end - start)
            if end - start > 1:
                run = [*self._before, *ids[start:end]]
                at += len(self._tokenizer.decode(run)) - self._shown
                continue
            piece = self.text(ids[start])
            # The first token has no space in front of it where the text has none.
            if at == 0 and not text.startswith(piece):
                piece = piece.lstrip()
            at += len(piece)
        return found

    def _runs(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """(start, end) of single tokens, and of tokens in a row that are bytes."""
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(ids):
            end = start + 1
            if _INCOMPLETE in self.text(ids[start]):
                while end < len(ids) and _INCOMPLETE in self.text(ids[end]):
                    end += 1
            found.append((start, end))
            start = end
        return found
