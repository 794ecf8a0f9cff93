"""What rows are made of, as flat arrays: pieces of documents, and the spans cut out of them."""

import dataclasses

import numpy as np

from glm_jax.draws import Draws, Purpose
from glm_jax.ragged import sums_before, within_groups

# The beginning of a document that has fewer tokens than this at the end of a row is left out.
SHORTEST_BEGINNING = 8


@dataclasses.dataclass(frozen=True)
class Pieces:
    """P pieces of documents that rows may use, in the order of the rows.

    A row takes its pieces in order as long as they fit; each becomes a segment of its own,
    [CLS] + tokens (+ eos where its document ends).

    Attributes:
      counts: [R] int64, pieces of each row.
      source: [P] int64, index of the first token in the stored tokens.
      size: [P] int64, tokens there are, at least 1.
      begins: [P] bool, the document begins here.
      ends: [P] bool, the document ends behind these tokens.
    """

    counts: np.ndarray
    source: np.ndarray
    size: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """[P] the row of each piece."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, rows: np.ndarray) -> "Pieces":
        """The pieces of some rows, given by their numbers in ascending order."""
        chosen = np.zeros(len(self.counts), bool)
        chosen[rows] = True
        kept = np.flatnonzero(np.repeat(chosen, self.counts))
        return dataclasses.replace(self.choose(kept), counts=self.counts[rows])

    def choose(self, kept: np.ndarray) -> "Pieces":
        """Some of the pieces, given by their numbers in ascending order; the rows stay."""
        return Pieces(
            np.bincount(self.row[kept], minlength=len(self.counts)),
            self.source[kept],
            self.size[kept],
            self.begins[kept],
            self.ends[kept],
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """P segments and the S spans cut out of them; spans are ascending within each segment.

    Attributes:
      row: [P] int64, ascending.
      source: [P] int64, index of the first token in the stored tokens.
      size: [P] int64, tokens used.
      eos: [P] bool, eos follows the tokens.
      objective: [P] int64, `SPAN`, `SENTENCE` or `DOCUMENT` of `glm_jax.batch`.
      num_spans: [P] int64.
      start: [S] int64, first token of the span, counted from the piece's first token; a span that
        takes eos counts it as token `size`.
      length: [S] int64, at least 1.
      closed: [S] bool, the span ends in an end token; False: prefix form of the document objective.
      order: [S] int64, the spans in the order of part B, segment by segment.
      fewer: [R] bool, rows that got fewer or shorter spans than were drawn.
      fallen_back: [R] bool, sentence rows with a segment that got spans, having no sentence.
    """

    row: np.ndarray
    source: np.ndarray
    size: np.ndarray
    eos: np.ndarray
    objective: np.ndarray
    num_spans: np.ndarray
    start: np.ndarray
    length: np.ndarray
    closed: np.ndarray
    order: np.ndarray
    fewer: np.ndarray
    fallen_back: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fit:
    """How far a row gets through its pieces.

    Attributes:
      whole: [P] bool, the piece fits as it is.
      cut: [P] bool, the first piece of each row that does not fit.
      room: [P] int64, places left in the row where the piece begins.
    """

    whole: np.ndarray
    cut: np.ndarray
    room: np.ndarray

    def kept(self, pieces: Pieces, size: np.ndarray) -> np.ndarray:
        """[P] bool: pieces to use when the cut ones are cut to `size`."""
        first = within_groups(pieces.counts) == 0
        return self.whole | (self.cut & (size >= np.where(first, 1, SHORTEST_BEGINNING)))


def fit(pieces: Pieces, places: np.ndarray, length: int) -> Fit:
    """Takes pieces in order until the row is full.

    Args:
      pieces: of R rows.
      places: [P] places that each piece would fill as a segment.
      length: places of a row.
    """
    # What does not fit is subtracted too, so that no room is left behind the first such piece.
    room = length - sums_before(places, pieces.counts)
    whole = places <= room
    return Fit(whole, ~whole & (room > 0), room)


def order_in_part_b(
    draws: Draws, piece: np.ndarray, spans_per_row: np.ndarray, shuffle: bool
) -> np.ndarray:
    """[S] span numbers in the order of part B: a uniform permutation within each segment."""
    if not shuffle:
        return np.arange(len(piece))
    keys = draws.integers(Purpose.ORDER, spans_per_row)
    return np.argsort((piece << 32) | keys, kind="stable")
