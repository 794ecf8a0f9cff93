"""Masked language modelling (BERT): masked tokens are predicted at their own slots."""

from collections.abc import Sequence

import numpy as np

from glm_jax.batch import SPAN, empty_fields, prefix_bounds
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.corruption.plan import Plan
from glm_jax.ragged import sums_before, within_groups
from glm_jax.special_tokens import SpecialTokens


def assemble_masked(
    tokens: Sequence[int], spans: Sequence[Sequence[int]], *, mask_id: int
) -> dict[str, np.ndarray]:
    """Replaces each token of the spans by a mask; there is no part B.

    With C = [CLS], E = eos, M = mask_id:

        assemble_masked([C, a, b, c, d, E], spans=[(1, 3)], mask_id=M)
        tokens           C M M c d E
        targets          C a b c d E
        loss_weights     0 1 1 0 0 0
        positions        0 1 2 3 4 5    block_positions are 0
        attend_end       6 6 6 6 6 6    attend_start is 0

    Args:
      tokens: the n ids of the text.
      spans: half-open (start, end).
      mask_id: [MASK].

    Returns:
      The fields of a `Batch` by name, each of shape [n].
    """
    targets = np.array(tokens, np.int32)
    covered = np.zeros(len(targets), bool)
    for start, end in spans:
        covered[start:end] = True
    attend_start, attend_end = prefix_bounds(len(targets), len(targets))
    return {
        "tokens": np.where(covered, mask_id, targets).astype(np.int32),
        "targets": targets,
        "loss_weights": covered.astype(np.float32),
        "positions": np.arange(len(targets), dtype=np.int32),
        "block_positions": np.zeros(len(targets), np.int32),
        "attend_start": attend_start,
        "attend_end": attend_end,
        "objective": np.where(covered, SPAN, 0).astype(np.int32),
    }


def write_masked(
    plan: Plan,
    stored: np.ndarray,
    num_rows: int,
    length: int,
    special: SpecialTokens,
    config: ObjectiveConfig,
) -> dict[str, np.ndarray]:
    """`assemble_masked` for all segments of rows at once; arguments and result as `write_rows`.

    tokens        C M M c E | C d M E | . .
    positions     0 1 2 3 4 | 0 1 2 3 | 0 0
    attend_start  0 0 0 0 0 | 5 5 5 5 | 0 0
    attend_end    5 5 5 5 5 | 9 9 9 9 | 0 0
    """
    total = 1 + plan.size + plan.eos
    start = sums_before(total, np.bincount(plan.row, minlength=num_rows))
    first, within = plan.row * length + start, within_groups(total)
    slot = np.repeat(first, total) + within
    # Before a segment's first token the index may lie outside `stored`; these are overwritten.
    index = np.repeat(plan.source - 1, total) + within
    text = np.take(stored, index, mode="clip") if len(index) else index
    text[within == 0] = special.cls
    text[(np.cumsum(total) - 1)[plan.eos]] = special.eos
    segment = np.repeat(np.arange(len(plan.row)), plan.num_spans)
    covered = np.repeat((first + 1)[segment] + plan.start, plan.length) + within_groups(plan.length)

    flat = empty_fields(num_rows * length, special.pad)
    flat["tokens"][slot] = flat["targets"][slot] = text
    flat["tokens"][covered] = special.mask
    flat["loss_weights"][covered] = config.span_weight
    flat["objective"][covered] = SPAN
    flat["positions"][slot] = within
    flat["attend_start"][slot] = np.repeat(start, total)
    flat["attend_end"][slot] = np.repeat(start + total, total)
    return {name: value.reshape(num_rows, length) for name, value in flat.items()}
