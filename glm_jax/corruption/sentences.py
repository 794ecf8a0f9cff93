"""The sentence objective: whole sentences are cut out, drawn until they reach the budget.

A sentence ends at a token of `sentence_ends` (at the last one of several in a row) or at the end of
the document. A sentence that the window cut off at either side is not whole and is not taken. Two
adjacent sentences may both be taken; their masks are then adjacent. A segment with no whole
sentence, or with one that is the whole segment, gets spans instead.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from glm_jax.batch import SENTENCE, SPAN
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import SHORTEST_BEGINNING, Plan, Segments, fit, order_in_part_b
from glm_jax.corruption.spans import PlacedSpans, SpanCandidates, place
from glm_jax.draws import Draws, Purpose, SpanLengths
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The whole sentences of segments, in the order in which they are taken.

    Attributes:
      counts: [P] int64, sentences taken from each segment.
      start, length: [S] int64, of the sentences taken, in the order of their draws.
    """

    counts: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def at_most(self, limit: np.ndarray) -> "Sentences":
        """The first `limit` [P] sentences of each segment."""
        kept = within_groups(self.counts) < limit[group_of(self.counts)]
        return Sentences(np.minimum(self.counts, limit), self.start[kept], self.length[kept])

    def of(self, chosen: np.ndarray) -> "Sentences":
        """The sentences of the chosen segments, [P] bool, and none of the others."""
        return self.at_most(np.where(chosen, self.counts, 0))


def find_sentences(
    segments: Segments, size: np.ndarray, stored: np.ndarray, sentence_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All sentences of segments cut to `size`, whole or not.

        stored a b . c d . . e     sentence_ends "."
        one segment, a whole document:
        counts [3]  start [0, 3, 7]  length [3, 4, 1]  whole [True, True, True]

    Returns:
      counts [P] sentences of each segment; start, length and whole [S].
    """
    index = np.repeat(segments.source, size) + within_groups(size)
    ends = sentence_ends[stored[index]]
    first = starts(size)
    last = first + size - 1
    followed = np.append(ends[1:], False)
    followed[last] = False
    closes = ends & ~followed
    # The end of a segment closes its last sentence, whole or not.
    closed_by_text = closes[last]
    closes[last] = True
    end = np.flatnonzero(closes) + 1
    start = np.append(0, end[:-1])
    counts = sums(closes, size)
    segment = group_of(counts)

    before = sentence_ends[stored[np.maximum(segments.source - 1, 0)]]
    whole = np.ones(len(end), bool)
    whole[starts(counts)] = segments.begins | before
    cut_off = ~(closed_by_text | (segments.ends & (size == segments.size)))
    whole[(starts(counts) + counts - 1)[cut_off]] = False
    return counts, start - first[segment], end - start, whole


def take_sentences(
    segments: Segments,
    size: np.ndarray,
    stored: np.ndarray,
    sentence_ends: np.ndarray,
    draws: Draws,
    ratio: float,
) -> Sentences:
    """Draws whole sentences until they cover at least `ratio` of each segment."""
    counts, start, length, whole = find_sentences(segments, size, stored, sentence_ends)
    keys = draws.integers(Purpose.SENTENCE, sums(counts, segments.counts))
    segment = group_of(counts)
    possible = whole & (length < size[segment])
    segment, start, length, keys = (values[possible] for values in (segment, start, length, keys))
    drawn = np.argsort((segment << 32) | keys, kind="stable")
    start, length = start[drawn], length[drawn]
    counts = np.bincount(segment, minlength=len(counts))
    budget = (ratio * size).astype(np.int64)
    taken = (sums_before(length, counts) < budget[segment]) | (within_groups(counts) == 0)
    return Sentences(sums(taken, counts), start[taken], length[taken])


def plan_sentences(
    segments: Segments,
    draws: Draws,
    length: int,
    lengths: SpanLengths,
    config: ObjectiveConfig,
    stored: np.ndarray,
    sentence_ends: np.ndarray,
) -> Plan:
    """Plans rows of the sentence objective.

    The slots that a segment needs depend on the number of sentences taken, so the window is cut in
    two steps: first as if each segment lost one sentence, then with the number drawn. The segment
    that this cuts draws again, and takes no more sentences than it did before.

    Args:
      segments: of R rows.
      draws: of the R rows.
      length: T, slots in a row.
      lengths: the distribution of span lengths, for segments without a sentence.
      config: the ratios and whether spans are shuffled.
      stored: [N] stored tokens.
      sentence_ends: [V] bool, true for tokens that end a sentence.
    """
    rough = _rough_sizes(segments, length)
    spans = SpanCandidates.draw(segments, rough, draws, lengths, config, single=False)

    def take(segments: Segments, size: np.ndarray) -> Sentences:
        ratio = config.sentence_mask_ratio
        return take_sentences(segments, size, stored, sentence_ends, draws, ratio)

    choice = _choose(segments, rough, length, spans, take)
    size, kept, has_sentence = choice.size, choice.kept, choice.has_sentence
    number = choice.number * kept
    placed = place(spans, np.where(has_sentence, 0, number), size, segments.counts, draws)
    start, span_length = _ascending(*choice.sentences, (np.arange(len(size)), placed))
    num_spans, spans_per_row = number[kept], sums(number, segments.counts)
    return Plan(
        row=segments.row[kept],
        source=segments.source[kept],
        size=size[kept],
        eos=choice.eos[kept],
        objective=np.where(has_sentence, SENTENCE, SPAN)[kept],
        num_spans=num_spans,
        start=start,
        length=span_length,
        closed=np.ones(len(start), bool),
        order=order_in_part_b(draws, group_of(num_spans), spans_per_row, config.shuffle_spans),
        fewer=segments.rows_with(placed.fewer),
        fallen_back=segments.rows_with(kept & ~has_sentence),
    )


class _Choice(NamedTuple):
    """What is used of P segments and cut out of them.

    Attributes:
      size: [P] tokens used.
      number: [P] spans, whole sentences or random ones.
      has_sentence: [P] bool, the spans are sentences.
      eos: [P] bool, eos follows the tokens.
      kept: [P] bool, the segment is used.
      sentences: those of segments kept whole and of segments cut, with the segments' indices.
    """

    size: np.ndarray
    number: np.ndarray
    has_sentence: np.ndarray
    eos: np.ndarray
    kept: np.ndarray
    sentences: tuple[tuple[np.ndarray, Sentences], tuple[np.ndarray, Sentences]]


def _choose(
    segments: Segments,
    rough: np.ndarray,
    length: int,
    spans: SpanCandidates,
    take: Callable[[Segments, np.ndarray], Sentences],
) -> _Choice:
    """Takes sentences from segments of the sizes `rough`, and cuts those that do not fit then."""
    size = rough.copy()
    taken = take(segments, size)
    has_sentence = taken.counts > 0
    number = np.where(has_sentence, taken.counts, spans.number(size))
    eos = segments.ends & (size == segments.size)
    exact = fit(segments, 1 + size + eos + 2 * number, length)

    cut = np.flatnonzero(exact.cut)
    cut_size = np.clip(exact.room - 1 - 2 * number, 1, size)[cut]
    retaken = take(segments.choose(cut), cut_size).at_most(number[cut])
    span_size, span_number = spans.largest(size, exact.room)
    has_sentence[cut] = again = retaken.counts > 0
    size[cut] = np.where(again, cut_size, span_size[cut])
    number[cut] = np.where(again, retaken.counts, span_number[cut])

    first = within_groups(segments.counts) == 0
    shortest = np.where(first | (size == segments.size), 1, SHORTEST_BEGINNING)
    kept = (exact.whole | exact.cut) & (size >= shortest)
    whole = (np.arange(len(size)), taken.of(exact.whole & kept))
    sentences = (whole, (cut, retaken.of(kept[cut])))
    return _Choice(size, number, has_sentence, eos & exact.whole, kept, sentences)


def _rough_sizes(segments: Segments, length: int) -> np.ndarray:
    """[P] sizes of the segments as if each lost one sentence, which takes three slots."""
    size = np.minimum(segments.size, length)
    rough = fit(segments, size + segments.ends + 3, length)
    return np.where(rough.whole, size, np.clip(rough.room - 3, 1, size))


def _ascending(
    *parts: tuple[np.ndarray, Sentences | PlacedSpans],
) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of all spans, by segment and ascending within it."""
    segment = np.concatenate([segments[group_of(spans.counts)] for segments, spans in parts])
    start = np.concatenate([spans.start for _, spans in parts])
    length = np.concatenate([spans.length for _, spans in parts])
    by_start = np.argsort((segment << 32) | start, kind="stable")
    return start[by_start], length[by_start]
