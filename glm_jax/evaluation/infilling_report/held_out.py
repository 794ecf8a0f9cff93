"""Held-out texts with their spans, one segment each, before an order of the spans is chosen.

The windows lie at equal distances over the documents of a split, each in one document. Spans,
sentences and stretches are cut out of them as in training, by the same draws.

    documents  |aaaaaaaaaaaaaaaa|bbbb|cccccccc|     T = 8, 3 windows
    windows      --------        ----  -------      a short document is taken whole
"""

import dataclasses

import numpy as np

from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.plan import Plan, Segments
from glm_jax.data.store import Documents, TokenStore
from glm_jax.draws import Draws
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.ragged import starts
from glm_jax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of documents: one segment for each of R rows.

    Attributes:
      segments: of the rows, one each.
      first, document: [R] int64, index of the window's first token in its document, and the
        document's number of tokens.
    """

    segments: Segments
    first: np.ndarray
    document: np.ndarray


def windows(documents: Documents, count: int, length: int) -> Windows:
    """At most `count` windows of up to `length` tokens, around points at equal distances.

    A window that two points would have, in a document that is shorter, is taken once. There are no
    more windows than fit side by side.
    """
    offsets = np.asarray(documents.offsets)
    total = int(offsets[-1])
    count = min(count, -(-total // length))
    points = (2 * np.arange(count) + 1) * total // (2 * count)
    document = np.searchsorted(offsets, points, side="right") - 1
    begin, end = offsets[document], offsets[document + 1]
    source = np.unique(np.maximum(begin, np.minimum(points - length // 2, end - length)))
    document = np.searchsorted(offsets, source, side="right") - 1
    begin, end = offsets[document], offsets[document + 1]
    stop = np.minimum(source + length, end)
    segments = Segments(
        np.ones(len(source), np.int64), source, stop - source, source == begin, stop == end
    )
    return Windows(segments, source - begin, end - begin)


def held_out_texts(
    store: TokenStore,
    found: Windows,
    split: str,
    kind: int,
    config: ObjectiveConfig,
    *,
    length: int,
    seed: int,
) -> list[HeldOutText]:
    """Cuts spans, sentences or a stretch out of windows, by the rules and draws of training.

    Args:
      store: of the documents.
      found: windows of the split.
      split: of the store.
      kind: `SPAN`, `SENTENCE` or `DOCUMENT`.
      config: what is cut out.
      length: T, slots of a row; a window is cut so that its row fits.
      seed: of the draws; window i has those of row i of epoch 0.

    Returns:
      The texts; for `SENTENCE`, those whose window has a whole sentence.
    """
    tokens = store.splits[split].tokens
    corruptor = Corruptor(config, store.special, store.sentence_ends, length, seed)
    rows = np.arange(len(found.first))
    draws = Draws(seed, np.zeros_like(rows), rows)
    plan = corruptor.plan(kind, found.segments, draws, tokens)
    kept = np.flatnonzero((plan.objective == kind) & (plan.num_spans > 0)).tolist()
    return [_text(plan, index, found, tokens, store.special) for index in kept]


def _text(
    plan: Plan, segment: int, found: Windows, stored: np.ndarray, special: SpecialTokens
) -> HeldOutText:
    source, size = int(plan.source[segment]), int(plan.size[segment])
    eos = [special.eos] if plan.eos[segment] else []
    spans = slice(first := int(starts(plan.num_spans)[segment]), first + plan.num_spans[segment])
    begin = 1 + plan.start[spans]
    row = int(plan.row[segment])
    return HeldOutText(
        index=row,
        objective=int(plan.objective[segment]),
        tokens=[special.cls, *stored[source : source + size].tolist(), *eos],
        spans=list(zip(begin.tolist(), (begin + plan.length[spans]).tolist(), strict=True)),
        closed=bool(plan.closed[spans][0]),
        first=int(found.first[row]),
        document=int(found.document[row]),
    )
