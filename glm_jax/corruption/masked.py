"""Masked language modelling (BERT): covered tokens are predicted where they stand."""

from collections.abc import Sequence

import numpy as np

from glm_jax.batch import SPAN, prefix_bounds


def assemble_masked(
    tokens: Sequence[int], spans: Sequence[Sequence[int]], *, mask_id: int
) -> dict[str, np.ndarray]:
    """Puts a mask in the place of each covered token; there is no part B.

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
