"""The sentence objective: whole sentences of a text, drawn until they reach the budget.

A sentence ends at a token that ends sentences (`sentence_ends`; of several in a row the last one),
or at the end of the document. What the window cut off at either side is no whole sentence and is
not taken. Sentences that touch may both be taken: two masks side by side. A text that holds no
whole sentence besides itself gets spans in place of sentences.
"""

import dataclasses

import numpy as np

from glm_jax.batch import SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.plan import SHORTEST_BEGINNING, Pieces, Plan, fit, order_in_part_b
from glm_jax.corruption.spans import PlacedSpans, SpanCandidates, place
from glm_jax.draws import Draws, Purpose, SpanLengths
from glm_jax.ragged import group_of, starts, sums, sums_before, within_groups


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The whole sentences of pieces, in the order in which they are taken.

    Attributes:
      counts: [P] int64, sentences taken from each piece.
      start, length: [S] int64, of those taken, in the order of their draws.
    """

    counts: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def at_most(self, limit: np.ndarray) -> "Sentences":
        """The first `limit` [P] sentences of each piece."""
        kept = within_groups(self.counts) < limit[group_of(self.counts)]
        return Sentences(np.minimum(self.counts, limit), self.start[kept], self.length[kept])

    def of(self, chosen: np.ndarray) -> "Sentences":
        """Those of some pieces, [P] bool, and none of the others."""
        return self.at_most(np.where(chosen, self.counts, 0))


def find_sentences(
    pieces: Pieces, size: np.ndarray, stored: np.ndarray, sentence_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All sentences of pieces cut to `size`, whole or not.

        stored a b . c d . . e     sentence_ends "."
        one piece that begins and ends its document:
        counts [3]  start [0, 3, 7]  length [3, 4, 1]  whole [True, True, True]

    Returns:
      counts [P] sentences of each piece; start, length and whole [S].
    """
    places = np.repeat(pieces.source, size) + within_groups(size)
    ends = sentence_ends[stored[places]]
    first = starts(size)
    last = first + size - 1
    followed = np.append(ends[1:], False)
    followed[last] = False
    closes = ends & ~followed
    # The end of a piece closes its last sentence, whole or not.
    closed_by_text = closes[last]
    closes[last] = True
    end = np.flatnonzero(closes) + 1
    start = np.append(0, end[:-1])
    counts = sums(closes, size)
    piece = group_of(counts)

    before = sentence_ends[stored[np.maximum(pieces.source - 1, 0)]]
    whole = np.ones(len(end), bool)
    whole[starts(counts)] = pieces.begins | before
    cut_off = ~(closed_by_text | (pieces.ends & (size == pieces.size)))
    whole[(starts(counts) + counts - 1)[cut_off]] = False
    return counts, start - first[piece], end - start, whole


def take_sentences(
    pieces: Pieces,
    size: np.ndarray,
    stored: np.ndarray,
    sentence_ends: np.ndarray,
    draws: Draws,
    ratio: float,
) -> Sentences:
    """Draws whole sentences until they cover `ratio` of the text, the last one finished."""
    counts, start, length, whole = find_sentences(pieces, size, stored, sentence_ends)
    keys = draws.integers(Purpose.SENTENCE, sums(counts, pieces.counts))
    piece = group_of(counts)
    possible = whole & (length < size[piece])
    piece, start, length, keys = (values[possible] for values in (piece, start, length, keys))
    drawn = np.argsort((piece << 32) | keys, kind="stable")
    start, length = start[drawn], length[drawn]
    counts = np.bincount(piece, minlength=len(counts))
    budget = (ratio * size).astype(np.int64)
    taken = (sums_before(length, counts) < budget[piece]) | (within_groups(counts) == 0)
    return Sentences(sums(taken, counts), start[taken], length[taken])


def plan_sentences(
    pieces: Pieces,
    draws: Draws,
    length: int,
    lengths: SpanLengths,
    config: ObjectiveConfig,
    stored: np.ndarray,
    sentence_ends: np.ndarray,
) -> Plan:
    """Plans rows of the sentence objective.

    How many places a text needs depends on its sentences, so the window is cut in two steps: first
    as if each text lost one sentence, then with the number really drawn; the text at the cut draws
    once more, and takes no more sentences than there was room left for.

    Args:
      pieces: of R rows.
      draws: of the R rows.
      length: T, places of a row.
      lengths: the law of span lengths, for texts without a sentence.
      config: ratios, order of spans.
      stored: [N] stored tokens.
      sentence_ends: bool [V].
    """
    size = np.minimum(pieces.size, length)
    rough = fit(pieces, size + pieces.ends + 3, length)
    size = np.where(rough.whole, size, np.clip(rough.room - 3, 1, size))
    ratio = config.sentence_mask_ratio
    taken = take_sentences(pieces, size, stored, sentence_ends, draws, ratio)
    spans = SpanCandidates.draw(pieces, size, draws, lengths, config, single=False)
    has_sentence = taken.counts > 0
    number = np.where(has_sentence, taken.counts, spans.number(size))
    eos = pieces.ends & (size == pieces.size)
    exact = fit(pieces, 1 + size + eos + 2 * number, length)

    cut = np.flatnonzero(exact.cut)
    cut_size = np.clip(exact.room - 1 - 2 * number, 1, size)[cut]
    retaken = take_sentences(pieces.choose(cut), cut_size, stored, sentence_ends, draws, ratio)
    retaken = retaken.at_most(number[cut])
    span_size, span_number = spans.largest(size, exact.room)
    has_sentence[cut] = again = retaken.counts > 0
    size[cut] = np.where(again, cut_size, span_size[cut])
    number[cut] = np.where(again, retaken.counts, span_number[cut])

    first = within_groups(pieces.counts) == 0
    shortest = np.where(first | (size == pieces.size), 1, SHORTEST_BEGINNING)
    kept = (exact.whole | exact.cut) & (size >= shortest)
    number *= kept
    placed = place(spans, np.where(has_sentence, 0, number), size, pieces.counts, draws)
    start, span_length = _ascending(
        (np.arange(len(size)), taken.of(exact.whole & kept)),
        (cut, retaken.of(kept[cut])),
        (np.arange(len(size)), placed),
    )
    row, rows = pieces.row, len(pieces.counts)
    num_spans, spans_per_row = number[kept], sums(number, pieces.counts)
    return Plan(
        row=row[kept],
        source=pieces.source[kept],
        size=size[kept],
        eos=(eos & exact.whole)[kept],
        objective=np.where(has_sentence, SENTENCE, SPAN)[kept],
        num_spans=num_spans,
        start=start,
        length=span_length,
        closed=np.ones(len(start), bool),
        order=order_in_part_b(draws, group_of(num_spans), spans_per_row, config.shuffle_spans),
        fewer=np.bincount(row[placed.fewer], minlength=rows) > 0,
        fallen_back=np.bincount(row[kept & ~has_sentence], minlength=rows) > 0,
    )


def _ascending(
    *parts: tuple[np.ndarray, Sentences | PlacedSpans],
) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of spans given by their pieces' numbers, ascending within each piece."""
    piece = np.concatenate([pieces[group_of(spans.counts)] for pieces, spans in parts])
    start = np.concatenate([spans.start for _, spans in parts])
    length = np.concatenate([spans.length for _, spans in parts])
    by_place = np.argsort((piece << 32) | start, kind="stable")
    return start[by_place], length[by_place]
