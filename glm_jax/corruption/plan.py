"""The content of rows as flat arrays: segments of documents, and the spans cut out of them."""

import dataclasses

import numpy as np

from glm_jax.draws import Draws, Purpose
from glm_jax.ragged import sums_before, within_groups

# A document whose beginning would get fewer tokens than this at the end of a row is left out.
SHORTEST_BEGINNING = 8


@dataclasses.dataclass(frozen=True)
class Segments:
    """P candidate segments for R rows, in row order; each is a stretch of one document.

    A row takes its segments in order as long as they fit. In the row a segment is
    [CLS] + tokens (+ eos where its document ends).

    Attributes:
      counts: [R] int64, segments of each row.
      source: [P] int64, index of the first token in the stored tokens.
      size: [P] int64, tokens available, at least 1.
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
        """[P] the row of each segment."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def rows_with(self, chosen: np.ndarray) -> np.ndarray:
        """[R] bool: rows that have one of the chosen segments, [P] bool."""
        return np.bincount(self.row[chosen], minlength=len(self.counts)) > 0

    def take(self, rows: np.ndarray) -> "Segments":
        """The segments of some rows, given by ascending row indices."""
        chosen = np.zeros(len(self.counts), bool)
        chosen[rows] = True
        kept = np.flatnonzero(np.repeat(chosen, self.counts))
        return dataclasses.replace(self.choose(kept), counts=self.counts[rows])

    def choose(self, kept: np.ndarray) -> "Segments":
        """Some of the segments, given by ascending indices; the rows stay."""
        return Segments(
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
      start: [S] int64, first token of the span, counted from the segment's first token; eos counts
        as token `size`.
      length: [S] int64, at least 1.
      closed: [S] bool, the span ends in an end token; False: prefix form of the document objective.
      order: [S] int64, the spans in the order of part B, segment by segment.
      fewer: [R] bool, rows that got fewer or shorter spans than drawn.
      fallen_back: [R] bool, sentence rows with a segment that has no sentence and got spans.
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
    """Which segments fit into their rows.

    Attributes:
      whole: [P] bool, the segment fits as it is.
      cut: [P] bool, the first segment of each row that does not fit.
      room: [P] int64, slots left in the row where the segment begins.
    """

    whole: np.ndarray
    cut: np.ndarray
    room: np.ndarray

    def kept(self, segments: Segments, size: np.ndarray) -> np.ndarray:
        """[P] bool: segments to use if those of `cut` are cut to `size`."""
        first = within_groups(segments.counts) == 0
        return self.whole | (self.cut & (size >= np.where(first, 1, SHORTEST_BEGINNING)))


def fit(segments: Segments, slots: np.ndarray, length: int) -> Fit:
    """Finds which segments fit, taken in order until the row is full.

    Args:
      segments: of R rows.
      slots: [P] slots that each whole segment would fill.
      length: slots in a row.
    """
    # Segments that do not fit are subtracted too, so no room is left behind the first of them.
    room = length - sums_before(slots, segments.counts)
    whole = slots <= room
    return Fit(whole, ~whole & (room > 0), room)


def order_in_part_b(
    draws: Draws, segment: np.ndarray, spans_per_row: np.ndarray, shuffle: bool
) -> np.ndarray:
    """[S] span indices in the order of part B: a uniform permutation within each segment."""
    if not shuffle:
        return np.arange(len(segment))
    keys = draws.integers(Purpose.ORDER, spans_per_row)
    return np.argsort((segment << 32) | keys, kind="stable")
