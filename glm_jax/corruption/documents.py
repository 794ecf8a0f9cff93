"""The document objective: one long span per segment, at its end or anywhere in it."""

import numpy as np

from glm_jax.batch import DOCUMENT
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import Plan, Segments, fit
from glm_jax.draws import Draws, Purpose, below, unit


def plan_documents(segments: Segments, draws: Draws, length: int, config: ObjectiveConfig) -> Plan:
    """Plans rows of the document objective.

    Each segment of n tokens, [CLS] and eos included, loses one stretch of g tokens, with g uniform
    in floor(min_ratio n)..floor(max_ratio n) and at most n - 2. In the prefix form the stretch is
    the end of the segment, eos included, and has no end token. In the middle form it lies anywhere
    between [CLS] and eos.

    Args:
      segments: of R rows.
      draws: of the R rows.
      length: T, slots in a row.
      config: the ratios and the rate of the prefix form.
    """
    form, share, where = draws.integers(Purpose.SEGMENT, 3 * segments.counts).reshape(-1, 3).T
    prefix = unit(form) < config.document_prefix_rate
    # [CLS] and the mask; the middle form adds a start token.
    extra = np.where(prefix, 2, 3)
    size = np.minimum(segments.size, length)
    filled = fit(segments, size + segments.ends + extra, length)
    size = np.where(filled.cut, np.minimum(size, filled.room - extra), size)
    kept = filled.kept(segments, size)
    eos = (segments.ends & filled.whole)[kept]
    size, prefix, share, where = size[kept], prefix[kept], share[kept], where[kept]

    n = 1 + size + eos
    low = (config.document_min_ratio * n).astype(np.int64)
    high = (config.document_max_ratio * n).astype(np.int64)
    stretch = np.clip(low + below(share, high - low + 1), 1, np.maximum(n - 2, 1))
    start = np.where(prefix, n - 1 - stretch, below(where, size - stretch + 1))
    return Plan(
        row=segments.row[kept],
        source=segments.source[kept],
        size=size,
        eos=eos,
        objective=np.full(len(size), DOCUMENT),
        num_spans=np.ones(len(size), np.int64),
        start=start,
        length=stretch,
        closed=~prefix,
        order=np.arange(len(size)),
        fewer=np.zeros(len(segments.counts), bool),
        fallen_back=np.zeros(len(segments.counts), bool),
    )
