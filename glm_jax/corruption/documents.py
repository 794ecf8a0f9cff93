"""The document objective: one long stretch per text, at its end or anywhere in it."""

import numpy as np

from glm_jax.batch import DOCUMENT
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.plan import Pieces, Plan, fit
from glm_jax.draws import Draws, Purpose, below, unit


def plan_documents(pieces: Pieces, draws: Draws, length: int, config: ObjectiveConfig) -> Plan:
    """Plans rows of the document objective.

    Each text of n tokens, [CLS] and eos included, loses one stretch of g tokens, g uniform in
    floor(min_ratio n)..floor(max_ratio n) and at most n - 2. In the prefix form it is the end of
    the text, eos included, and has no end token; in the middle form it lies anywhere between [CLS]
    and eos.

    Args:
      pieces: of R rows.
      draws: of the R rows.
      length: T, places of a row.
      config: the ratios, and how often the prefix form is taken.
    """
    form, share, where = draws.integers(Purpose.PIECE, 3 * pieces.counts).reshape(-1, 3).T
    prefix = unit(form) < config.document_prefix_rate
    # [CLS], the tokens, the mask, and in the middle form a start token of its own.
    extra = np.where(prefix, 2, 3)
    size = np.minimum(pieces.size, length)
    filled = fit(pieces, size + pieces.ends + extra, length)
    size = np.where(filled.cut, np.minimum(size, filled.room - extra), size)
    kept = filled.kept(pieces, size)
    eos = (pieces.ends & filled.whole)[kept]
    size, prefix, share, where = size[kept], prefix[kept], share[kept], where[kept]

    n = 1 + size + eos
    low = (config.document_min_ratio * n).astype(np.int64)
    high = (config.document_max_ratio * n).astype(np.int64)
    stretch = np.clip(low + below(share, high - low + 1), 1, np.maximum(n - 2, 1))
    start = np.where(prefix, n - 1 - stretch, below(where, size - stretch + 1))
    return Plan(
        row=pieces.row[kept],
        source=pieces.source[kept],
        size=size,
        eos=eos,
        objective=np.full(len(size), DOCUMENT),
        num_spans=np.ones(len(size), np.int64),
        start=start,
        length=stretch,
        closed=~prefix,
        order=np.arange(len(size)),
        fewer=np.zeros(len(pieces.counts), bool),
        fallen_back=np.zeros(len(pieces.counts), bool),
    )
