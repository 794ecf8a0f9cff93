"""The causal objective of ChatGLM2 and later: each token is predicted from those before it.

Nothing is cut out. Each segment begins with [gMASK] and the start token, as a prompt does; eos is a
target only:

    tokens           G S a b c d | G S e f | . .        segments a b c d and e f
    targets          . a b c d E | . e f E | . .        E eos
    positions        0 1 2 3 4 5 | 0 1 2 3 | 0 0
    attend_start     0 0 0 0 0 0 | 6 6 6 6 | 0 0
    attend_end       1 2 3 4 5 6 | 7 8 9 10 | 0 0
"""

import numpy as np

from glm_jax.batch import CAUSAL, empty_fields
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import Segments, fit
from glm_jax.ragged import sums_before, within_groups
from glm_jax.special_tokens import SpecialTokens

# [gMASK] and the start token.
PREFIX = 2


def write_causal(
    segments: Segments,
    stored: np.ndarray,
    length: int,
    special: SpecialTokens,
    config: ObjectiveConfig,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Writes rows of `length` slots: segments one after the other, then padding.

    Where a row cuts a document off, the last target is the document's next token.

    Args:
      segments: of R rows.
      stored: [N] stored tokens that the segments' sources point into.
      length: T.
      special: ids to insert.
      config: the loss weight of a target.

    Returns:
      The fields of a Batch by name, [R, T], and the counts of `Corruptor.statistics_names` that are
      not 0.
    """
    num_rows = len(segments.counts)
    filled = fit(segments, segments.size + PREFIX, length)
    size = np.where(filled.cut, np.minimum(segments.size, filled.room - PREFIX), segments.size)
    kept = filled.kept(segments, size)
    row, source, size = segments.row[kept], segments.source[kept], size[kept]
    ends = (segments.ends & filled.whole)[kept]

    total = size + PREFIX
    start = sums_before(total, np.bincount(row, minlength=num_rows))
    within = within_groups(total)
    slot = np.repeat(row * length + start, total) + within
    index = np.repeat(source - PREFIX, total) + within

    flat = empty_fields(num_rows * length, special.pad)
    # Before a segment's first token the index may lie outside `stored`; these are overwritten.
    tokens = np.take(stored, index, mode="clip")
    tokens[within == 0], tokens[within == 1] = special.gmask, special.start
    targets = np.take(stored, index + 1, mode="clip")
    targets[within == 0] = special.start
    last = np.cumsum(total) - 1
    targets[last[ends]] = special.eos
    flat["tokens"][slot], flat["targets"][slot] = tokens, targets
    flat["positions"][slot] = within
    flat["attend_start"][slot] = np.repeat(start, total)
    flat["attend_end"][slot] = np.repeat(start, total) + within + 1
    predicted = slot[within > 0]
    flat["loss_weights"][predicted] = config.causal_weight
    flat["objective"][predicted] = CAUSAL
    counted = {
        "rows": num_rows,
        "places_used": int(total.sum()),
        "source_tokens": int(size.sum()),
        "targets": len(predicted),
    }
    return {name: value.reshape(num_rows, length) for name, value in flat.items()}, counted
