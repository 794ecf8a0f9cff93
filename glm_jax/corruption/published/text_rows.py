"""The text of a row as the published loader picks it: documents drawn with replacement, cut."""

import dataclasses
import random

import numpy as np

from glm_jax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class TextRow:
    """The tokens of one row before anything is cut out.

    Attributes:
      tokens: [n] integers, [CLS] and eos included.
      weights: [n] loss weights, 0 on [CLS] and on prompts; only the prefix form of the document
        objective uses them.
    """

    tokens: np.ndarray
    weights: np.ndarray

    @classmethod
    def join(cls, parts: list["TextRow"]) -> "TextRow":
        """One row from several, one after the other."""
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )

    def cut(self, start: int, end: int) -> "TextRow":
        """tokens[start:end] and their weights."""
        return TextRow(self.tokens[start:end], self.weights[start:end])


@dataclasses.dataclass(frozen=True)
class Texts:
    """The documents that rows are drawn from.

    Attributes:
      tokens: [N] the documents' tokens.
      offsets: [documents + 1] where each begins, 0 first, N last.
      weights: [N] loss weights of the tokens; None: 1.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray | None = None

    def draw(self, draws: np.random.RandomState, eos: int) -> TextRow:
        """A document and its eos, drawn with probability proportional to its length."""
        index = int(draws.randint(int(self.offsets[-1])))
        document = int(np.searchsorted(self.offsets, index, side="right")) - 1
        begin, end = int(self.offsets[document]), int(self.offsets[document + 1])
        drawn = np.append(np.asarray(self.tokens[begin:end], np.int64), eos)
        if self.weights is None:
            return TextRow(drawn, np.ones(len(drawn), np.int64))
        return TextRow(drawn, np.append(self.weights[begin:end], 1))


def text_row(
    index: int,
    texts: Texts,
    *,
    special: SpecialTokens,
    sentence_ends: np.ndarray,
    length: int,
    mid_sentence_rate: float = 0.0,
) -> TextRow:
    """Row `index` of the published data set: at most `length` tokens, and no padding.

    A document is drawn with probability proportional to its length. A row takes part of a long
    document, from a drawn start that is moved to the start of a sentence; a short document is
    followed by others. The row is cut behind its last sentence end if that leaves half of it. With
    C = [CLS], E = eos, length 8:

        documents a b c d. e f. g h i j.  and  k l m.
        long   C e f. g h i j. E   cut to 8: C e f. g h i j.
        short  C k l m. E  C k l           the second is cut: C k l holds no sentence end

    Args:
      index: of the row, from 0; it seeds all draws.
      texts: the documents.
      special: ids of [CLS] and eos.
      sentence_ends: [V] bool, true for tokens that end a sentence.
      length: most tokens of the row, the L of the published scripts.
      mid_sentence_rate: how often a start is not moved to a sentence (`non_sentence_start`).
    """
    words = random.Random(index)
    draws = np.random.RandomState([words.randint(0, 2**32 - 1) for _ in range(16)])
    row = texts.draw(draws, special.eos)
    begin = TextRow(np.array([special.cls], row.tokens.dtype), np.zeros(1, row.weights.dtype))
    surplus = len(row.tokens) - length
    if surplus >= 0:
        start = int(draws.randint(surplus + 1))
        if draws.random_sample() >= mid_sentence_rate:
            left = draws.random_sample() < 0.5
            start = _move(row.tokens, start, left, length // 2, sentence_ends)
        row = TextRow.join([begin, row.cut(start, len(row.tokens))])
        return _cut_right(row, length, sentence_ends)
    parts = [begin, row]
    room = length - 1 - len(row.tokens)
    while room > 0:
        new = TextRow.join([begin, texts.draw(draws, special.eos)])
        parts.append(_cut_right(new, room, sentence_ends))
        # `new` is not cut: the slots that a cut frees behind the last document stay free.
        room -= len(new.tokens)
    return TextRow.join(parts)


def _move(tokens: np.ndarray, start: int, left: bool, most: int, sentence_ends: np.ndarray) -> int:
    """Moves a start by single tokens, `most` of them, until a sentence ends before it.

    Moving right from 0, the token before the start is tokens[-1], a quirk of the original: in a
    complete document that is eos and ends no sentence, so a start that was right is moved away.
    """
    for _ in range(most):
        if (left and start == 0) or start >= len(tokens) or sentence_ends[tokens[start - 1]]:
            break
        start += -1 if left else 1
    return start


def _cut_right(row: TextRow, length: int, sentence_ends: np.ndarray) -> TextRow:
    """Cuts a row that is longer than `length` behind its last sentence end, if that leaves half."""
    if len(row.tokens) <= length:
        return row
    ends = np.flatnonzero(sentence_ends[row.tokens[:length]])
    # Without a sentence end the original's search stops at the first token.
    kept = int(ends[-1]) + 1 if len(ends) else 1
    return row.cut(0, length if kept < length // 2 else kept)
