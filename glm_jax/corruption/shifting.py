"""Randomly shifted first positions, which train the whole position table on short texts."""

import numpy as np

from glm_jax.draws import Draws, Purpose, below


def shift_positions(fields: dict[str, np.ndarray], draws: Draws) -> None:
    """Shifts the first positions of each segment by a draw; the last of part A stays below T.

        positions  0 1 2 3 4 2 2 | 0 1 2 1 1  ->  7 8 9 10 11 9 9 | 2 3 4 3 3

    Positions that equal T (part B with sentinels) stay.

    Args:
      fields: of a Batch [R, T]; changed.
      draws: of the R rows.
    """
    length = fields["tokens"].shape[1]
    used = fields["attend_end"] > 0
    first = used & (np.arange(length) == fields["attend_start"])
    begin = np.flatnonzero(first)
    if not len(begin):
        return
    positions = fields["positions"].ravel()
    moved = used.ravel() & (positions < length)
    highest = np.maximum.reduceat(np.where(moved, positions, 0), begin)
    shift = below(draws.integers(Purpose.POSITION, first.sum(axis=1)), length - highest)
    segment = np.cumsum(first) - 1
    positions[moved] += shift[segment[moved]].astype(positions.dtype)
    fields["positions"] = positions.reshape(fields["tokens"].shape)
