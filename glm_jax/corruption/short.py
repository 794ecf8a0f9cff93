"""Rows of short texts, for a model of long rows that must not forget them."""

import dataclasses

import numpy as np

from glm_jax.corruption.plan import Pieces
from glm_jax.draws import Draws, Purpose, below, unit
from glm_jax.ragged import group_of, sums, within_groups

# Shortest text that is drawn, where rows have twice as many places.
SHORTEST = 32


def cut_short(pieces: Pieces, draws: Draws, length: int, rate: float) -> Pieces:
    """Cuts the pieces of some rows into equal parts of at most q tokens, q drawn for the row.

        size [70] ends [True], q = 32  ->  size [23, 23, 24] ends [False, False, True]

    The published code crops at random in place, and so repeats and loses tokens; here each stays
    where it was.

    Args:
      pieces: of R rows.
      draws: of the R rows.
      length: T; q is uniform in 32..T - 2 (from T / 2 where T is below 64).
      rate: share of the rows.
    """
    which, size = draws.integers(Purpose.SHORT, np.full(len(draws.rows), 2)).reshape(-1, 2).T
    shortest = min(SHORTEST, length // 2)
    most = shortest + below(size, length - 1 - shortest)
    # No piece has more tokens than there are places.
    most = np.where(unit(which) < rate, most, length)[pieces.row]
    parts = -(-pieces.size // most)
    piece, index = group_of(parts), within_groups(parts)
    start = index * pieces.size[piece] // parts[piece]
    end = (index + 1) * pieces.size[piece] // parts[piece]
    return dataclasses.replace(
        pieces,
        counts=sums(parts, pieces.counts),
        source=pieces.source[piece] + start,
        size=end - start,
        begins=pieces.begins[piece] & (index == 0),
        ends=pieces.ends[piece] & (index == parts[piece] - 1),
    )


def expected_parts(length: int, rate: float) -> float:
    """Texts that a token begins on average, because of the cuts: rate * E[1 / q]."""
    shortest = min(SHORTEST, length // 2)
    return rate * float(np.mean(1.0 / np.arange(shortest, length - 1)))
