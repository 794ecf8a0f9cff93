"""The span objective: lengths and number of spans, the cut of the window, and placement.

Each segment draws its own sequence of span lengths l1, l2, ... and takes them until they reach its
budget, `mask_ratio` times its tokens. The last span exceeds the budget by `overshoot` on average.
The budget is therefore lowered by as much and rounded at random, which makes the expected masked
share right. Every segment gets at least one span, so the share is higher in segments of fewer than
`mean / mask_ratio` (21) tokens.

The length that exceeds the budget tends to be long (its mean is E[l^2] / E[l], 4.0, where that of
the distribution is 3.16). So the lengths are shuffled before they are placed: the first, middle and
last spans of a segment have the same distribution. Over all spans of many segments this is the
distribution of lengths itself, since whether the i-th length is taken depends only on those before
it (Wald's identity). The mean length within a segment is larger by about Var[l] / (E[l] k),
0.84 / k tokens in segments of k spans: a segment that drew long spans has fewer of them
(docs/decisions/016-span-lengths.md).
"""

import dataclasses

import numpy as np

from glm_jax.batch import SPAN
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import Plan, Segments, fit, order_in_part_b
from glm_jax.draws import Draws, Purpose, SpanLengths, below, unit
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups

# A size that no segment has.
_NEVER = 2.0**40


@dataclasses.dataclass(frozen=True)
class SpanCandidates:
    """The spans that segments may take, each with the segment size from which on it is taken.

    Once the lengths are drawn, the number of spans can only grow with the size of the segment, and
    so does the corrupted length. The largest size that fits is therefore found by counting.

    Attributes:
      counts: [P] int64, candidates of each segment.
      segment: [C] int64, the segment of each candidate.
      index: [C] int64, the candidate's index within its segment.
      length: [C] int64, tokens of the span.
      entry: [C] int64, smallest size of the segment at which the span is taken.
      wanted: [C] int64, the same for a segment in which spans always fit.
    """

    counts: np.ndarray
    segment: np.ndarray
    index: np.ndarray
    length: np.ndarray
    entry: np.ndarray
    wanted: np.ndarray

    @classmethod
    def draw(
        cls,
        segments: Segments,
        size: np.ndarray,
        draws: Draws,
        lengths: SpanLengths,
        config: ObjectiveConfig,
        single: bool,
    ) -> "SpanCandidates":
        """Draws the span lengths of segments of at most `size` tokens."""
        ratio, overshoot = config.mask_ratio, lengths.overshoot
        counts = np.ones_like(size)
        if not single:
            counts += np.maximum((ratio * size - overshoot).astype(np.int64), 0)
            counts = np.minimum(counts, (size + 1) >> 1)
        segment = group_of(counts)
        index = within_groups(counts)
        length = lengths(draws.integers(Purpose.LENGTH, sums(counts, segments.counts)))
        before = sums_before(length, counts)
        fraction = unit(draws.integers(Purpose.SEGMENT, segments.counts))
        first = starts(counts)
        # Taken once floor(ratio * size - overshoot + fraction) exceeds the tokens covered before.
        wanted = np.ceil((before + (1 + overshoot - fraction)[segment]) / ratio)
        wanted = np.minimum(wanted, _NEVER).astype(np.int64)
        wanted[first] = 1
        # All spans so far must fit, with a free token between neighbours.
        entry = np.maximum(wanted, before + length + index)
        entry[first] = 1
        return cls(counts, segment, index, length, entry, wanted)

    def number(self, size: np.ndarray) -> np.ndarray:
        """[P] number of spans taken by segments of `size` [P] tokens."""
        return sums(self.entry <= size[self.segment], self.counts)

    def largest(
        self, size: np.ndarray, room: np.ndarray, slots_per_span: int = 2
    ) -> tuple[np.ndarray, np.ndarray]:
        """The largest sizes up to `size` at which segments without eos fit into `room`.

        A segment of n tokens and k spans fills 1 + n + 2k slots: [CLS], the tokens, and a mask and
        a start token per span. `slots_per_span` replaces the 2 where there is no part B.

        Returns:
          (size, number of spans), [P] each.
        """
        fits = 1 + self.entry + slots_per_span * (self.index + 1) <= room[self.segment]
        number = sums(fits, self.counts)
        next_entry = np.append(self.entry, 0)[starts(self.counts) + number]
        next_entry = np.where(number < self.counts, next_entry, np.iinfo(np.int64).max)
        most = room - 1 - slots_per_span * number
        return np.minimum(np.minimum(size, next_entry - 1), most), number


@dataclasses.dataclass(frozen=True)
class PlacedSpans:
    """The placed spans of segments, ascending within each.

    Attributes:
      counts: [P] int64, spans of each segment.
      start, length: [S] int64.
      fewer: [P] bool, segments that got fewer or shorter spans than drawn.
    """

    counts: np.ndarray
    start: np.ndarray
    length: np.ndarray
    fewer: np.ndarray


def place(
    candidates: SpanCandidates,
    number: np.ndarray,
    size: np.ndarray,
    segments_per_row: np.ndarray,
    draws: Draws,
) -> PlacedSpans:
    """Places the first `number` candidates of each segment by the rule of `place_spans`.

    Each span has one draw. Sorting a segment's draws carries the lengths along, which shuffles
    them; the high bits of a draw then give the free room left of its span.

        lengths as drawn 1 2 5, the 5 exceeded the budget   draws .61 .20 .43 of the free room
        in the text      2 5 1                              free room .20 .43 .61

    Independent, identically distributed draws have each order equally often, whatever their sorted
    values. So the order of the lengths is uniform and independent of where the spans start.

    Args:
      candidates: of P segments.
      number: [P] spans to place; 0 where the segment is not used.
      size: [P] tokens of the segment.
      segments_per_row: [R].
      draws: of the R rows.
    """
    kept = candidates.index < number[candidates.segment]
    segment, length = candidates.segment[kept], candidates.length[kept]
    # The first span is taken even if it does not fit, and shortened; it may start anywhere.
    longest = np.maximum(size >> 1, 1)[segment]
    shorter = (candidates.index[kept] == 0) & (length > longest)
    length = np.where(shorter, longest, length)
    where = draws.integers(Purpose.PLACE, sums(number, segments_per_row))
    by_start = np.argsort((segment << 32) | where, kind="stable")
    where, length = where[by_start], length[by_start]
    free = size - sums(length, number) - number + 2
    start = below(where, free[segment]) + sums_before(length + 1, number)
    wanted = sums(candidates.wanted <= size[candidates.segment], candidates.counts)
    fewer = (number > 0) & (number < wanted)
    fewer[segment[shorter]] = True
    return PlacedSpans(number, start, length, fewer)


def plan_spans(
    segments: Segments,
    draws: Draws,
    length: int,
    lengths: SpanLengths,
    config: ObjectiveConfig,
    single: bool = False,
) -> Plan:
    """Plans rows of the span objective.

    Args:
      segments: of R rows.
      draws: of the R rows.
      length: T, slots in a row.
      lengths: the distribution of span lengths.
      config: the mask ratio, whether spans are shuffled, whether there is a part B.
      single: exactly one span per segment, whatever the mask ratio.
    """
    size = np.minimum(segments.size, length)
    candidates = SpanCandidates.draw(segments, size, draws, lengths, config, single)
    number = candidates.number(size)
    per_span = 0 if config.published.masked_lm else 2
    filled = fit(segments, 1 + size + segments.ends + per_span * number, length)
    cut_size, cut_number = candidates.largest(size, filled.room, per_span)
    size = np.where(filled.cut, cut_size, size)
    kept = filled.kept(segments, size)
    number = np.where(filled.cut, cut_number, number) * kept
    placed = place(candidates, number, size, segments.counts, draws)
    num_spans = number[kept]
    spans_per_row = sums(number, segments.counts)
    return Plan(
        row=segments.row[kept],
        source=segments.source[kept],
        size=size[kept],
        eos=(segments.ends & filled.whole)[kept],
        objective=np.full(len(num_spans), SPAN),
        num_spans=num_spans,
        start=placed.start,
        length=placed.length,
        closed=np.ones(len(placed.start), bool),
        order=order_in_part_b(draws, group_of(num_spans), spans_per_row, config.shuffle_spans),
        fewer=segments.rows_with(placed.fewer),
        fallen_back=np.zeros(len(segments.counts), bool),
    )
