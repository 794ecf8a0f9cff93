"""The span objective: lengths and number of spans, the cut of the window, and placement.

Each text draws its own sequence of span lengths l1, l2, ... and takes them until its budget, the
mask ratio's share of its tokens, is reached. Since the last one passes the budget by `overshoot` on
average, the budget is lowered by as much, and its fraction is drawn: so the masked share is right
on average. Every text gets at least one span, which makes the share higher in texts of fewer than
`mean / mask_ratio` (21) tokens.

The length that passes the budget tends to be a long one (its mean is E[l^2] / E[l], 4.0 where that
of the distribution is 3.16), so the lengths are shuffled before they are placed: first, middle and
last span of a text have the same distribution. Over all spans of many texts it is that of lengths
itself, since whether an i-th length is taken depends on those before it alone (Wald's identity).
The mean length within a text is larger by about Var[l] / (E[l] k), 0.84 / k tokens where texts have
k spans: a text that drew long lengths has fewer (docs/decisions/016-span-lengths.md).
"""

import dataclasses

import numpy as np

from glm_jax.batch import SPAN
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.plan import Pieces, Plan, fit, order_in_part_b
from glm_jax.draws import Draws, Purpose, SpanLengths, below, unit
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups

# A size that no text has.
_NEVER = 2.0**40


@dataclasses.dataclass(frozen=True)
class SpanCandidates:
    """The spans that pieces would take, with the size from which on each is taken.

    With the lengths drawn, the number of spans of a piece only grows with its size; so does the
    corrupted length, and the largest size that fits a room is found by counting.

    Attributes:
      counts: [P] int64, candidates of each piece.
      piece: [C] int64, the piece of each candidate.
      index: [C] int64, its number within the piece.
      length: [C] int64.
      entry: [C] int64, smallest size of the piece at which the span is taken.
      wanted: [C] int64, the same if there were always room for it.
    """

    counts: np.ndarray
    piece: np.ndarray
    index: np.ndarray
    length: np.ndarray
    entry: np.ndarray
    wanted: np.ndarray

    @classmethod
    def draw(
        cls,
        pieces: Pieces,
        size: np.ndarray,
        draws: Draws,
        lengths: SpanLengths,
        config: ObjectiveConfig,
        single: bool,
    ) -> "SpanCandidates":
        """Draws the span lengths of pieces of at most `size` tokens."""
        ratio, overshoot = config.mask_ratio, lengths.overshoot
        counts = np.ones_like(size)
        if not single:
            counts += np.maximum((ratio * size - overshoot).astype(np.int64), 0)
            counts = np.minimum(counts, (size + 1) >> 1)
        piece = group_of(counts)
        index = within_groups(counts)
        length = lengths(draws.integers(Purpose.LENGTH, sums(counts, pieces.counts)))
        before = sums_before(length, counts)
        fraction = unit(draws.integers(Purpose.PIECE, pieces.counts))
        first = starts(counts)
        # Taken once floor(ratio * size - overshoot + fraction) exceeds what is covered before.
        wanted = np.ceil((before + (1 + overshoot - fraction)[piece]) / ratio)
        wanted = np.minimum(wanted, _NEVER).astype(np.int64)
        wanted[first] = 1
        # All spans so far must fit, with a free token between neighbours.
        entry = np.maximum(wanted, before + length + index)
        entry[first] = 1
        return cls(counts, piece, index, length, entry, wanted)

    def number(self, size: np.ndarray) -> np.ndarray:
        """[P] spans that pieces of [P] `size` take."""
        return sums(self.entry <= size[self.piece], self.counts)

    def largest(
        self, size: np.ndarray, room: np.ndarray, places_per_span: int = 2
    ) -> tuple[np.ndarray, np.ndarray]:
        """[P] size up to `size`, and number of spans, at which a segment without eos fills `room`.

        A segment of n tokens and k spans has 1 + n + 2k places: [CLS], a mask and a start token for
        each span; other than 2 where spans have no part B.
        """
        fits = 1 + self.entry + places_per_span * (self.index + 1) <= room[self.piece]
        number = sums(fits, self.counts)
        next_entry = np.append(self.entry, 0)[starts(self.counts) + number]
        next_entry = np.where(number < self.counts, next_entry, np.iinfo(np.int64).max)
        most = room - 1 - places_per_span * number
        return np.minimum(np.minimum(size, next_entry - 1), most), number


@dataclasses.dataclass(frozen=True)
class PlacedSpans:
    """Spans that lie in pieces, ascending, and whether a piece got fewer or shorter ones.

    Attributes:
      counts: [P] int64, spans of each piece.
      start, length: [S] int64.
      fewer: [P] bool.
    """

    counts: np.ndarray
    start: np.ndarray
    length: np.ndarray
    fewer: np.ndarray


def place(
    candidates: SpanCandidates,
    number: np.ndarray,
    size: np.ndarray,
    pieces_per_row: np.ndarray,
    draws: Draws,
) -> PlacedSpans:
    """Places the first `number` candidates of each piece by the rule of `place_spans`.

    One draw a span says both how much free room lies left of it, by its high bits, and in which
    order the lengths stand, by all of them: sorted, the draws of a piece carry their lengths along.

        lengths as drawn 1 2 5, the 5 passed the budget     draws .61 .20 .43 of the free room
        in the text      2 5 1                              free room .20 .43 .61

    Independent draws of one distribution fall in each order equally often, whatever their sorted
    values; so the lengths stand in a uniform order that says nothing of where they lie.

    Args:
      candidates: of P pieces.
      number: [P] spans to place; 0 where the piece is not used.
      size: [P] tokens of the piece.
      pieces_per_row: [R].
      draws: of the R rows.
    """
    kept = candidates.index < number[candidates.piece]
    piece, length = candidates.piece[kept], candidates.length[kept]
    # The first one drawn is taken even where it does not fit; it may stand anywhere in the text.
    longest = np.maximum(size >> 1, 1)[piece]
    shorter = (candidates.index[kept] == 0) & (length > longest)
    length = np.where(shorter, longest, length)
    where = draws.integers(Purpose.PLACE, sums(number, pieces_per_row))
    by_place = np.argsort((piece << 32) | where, kind="stable")
    where, length = where[by_place], length[by_place]
    free = size - sums(length, number) - number + 2
    start = below(where, free[piece]) + sums_before(length + 1, number)
    wanted = sums(candidates.wanted <= size[candidates.piece], candidates.counts)
    fewer = (number > 0) & (number < wanted)
    fewer[piece[shorter]] = True
    return PlacedSpans(number, start, length, fewer)


def plan_spans(
    pieces: Pieces,
    draws: Draws,
    length: int,
    lengths: SpanLengths,
    config: ObjectiveConfig,
    single: bool = False,
) -> Plan:
    """Plans rows of the span objective.

    Args:
      pieces: of R rows.
      draws: of the R rows.
      length: T, places of a row.
      lengths: the law of span lengths.
      config: mask ratio, order of spans, whether there is a part B.
      single: exactly one span per segment, whatever the mask ratio.
    """
    size = np.minimum(pieces.size, length)
    candidates = SpanCandidates.draw(pieces, size, draws, lengths, config, single)
    number = candidates.number(size)
    per_span = 0 if config.masked_lm else 2
    filled = fit(pieces, 1 + size + pieces.ends + per_span * number, length)
    cut_size, cut_number = candidates.largest(size, filled.room, per_span)
    size = np.where(filled.cut, cut_size, size)
    kept = filled.kept(pieces, size)
    number = np.where(filled.cut, cut_number, number) * kept
    placed = place(candidates, number, size, pieces.counts, draws)
    row = pieces.row
    fewer = np.bincount(row[placed.fewer], minlength=len(pieces.counts)) > 0
    num_spans = number[kept]
    spans_per_row = sums(number, pieces.counts)
    return Plan(
        row=row[kept],
        source=pieces.source[kept],
        size=size[kept],
        eos=(pieces.ends & filled.whole)[kept],
        objective=np.full(len(num_spans), SPAN),
        num_spans=num_spans,
        start=placed.start,
        length=placed.length,
        closed=np.ones(len(placed.start), bool),
        order=order_in_part_b(draws, group_of(num_spans), spans_per_row, config.shuffle_spans),
        fewer=fewer,
        fallen_back=np.zeros(len(pieces.counts), bool),
    )
