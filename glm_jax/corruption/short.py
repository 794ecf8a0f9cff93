"""Rows of short segments, so that a model trained on long rows also sees short texts."""

import dataclasses

import numpy as np

from glm_jax.corruption.plan import Segments
from glm_jax.draws import Draws, Purpose, below, unit
from glm_jax.ragged import group_of, sums, within_groups

# The smallest q that is drawn, in rows of at least twice as many slots.
SHORTEST = 32


def cut_short(segments: Segments, draws: Draws, length: int, rate: float) -> Segments:
    """Cuts the segments of some rows into equal parts of at most q tokens, with q drawn per row.

        size [70] ends [True], q = 32  ->  size [23, 23, 24] ends [False, False, True]

    The published code takes random crops instead, which repeats some tokens and loses others. Here
    each token appears once, in its order.

    Args:
      segments: of R rows.
      draws: of the R rows.
      length: T; q is uniform in 32..T - 2 (from T / 2 where T is below 64).
      rate: share of rows that are cut.
    """
    which, size = draws.integers(Purpose.SHORT, np.full(len(draws.rows), 2)).reshape(-1, 2).T
    shortest = min(SHORTEST, length // 2)
    most = shortest + below(size, length - 1 - shortest)
    # A segment has at most `length` tokens, so this leaves the other rows as they are.
    most = np.where(unit(which) < rate, most, length)[segments.row]
    parts = -(-segments.size // most)
    segment, index = group_of(parts), within_groups(parts)
    start = index * segments.size[segment] // parts[segment]
    end = (index + 1) * segments.size[segment] // parts[segment]
    return dataclasses.replace(
        segments,
        counts=sums(parts, segments.counts),
        source=segments.source[segment] + start,
        size=end - start,
        begins=segments.begins[segment] & (index == 0),
        ends=segments.ends[segment] & (index == parts[segment] - 1),
    )


def expected_parts(length: int, rate: float) -> float:
    """Segments that the cuts add per token, on average: rate * E[1 / q]."""
    shortest = min(SHORTEST, length // 2)
    return rate * float(np.mean(1.0 / np.arange(shortest, length - 1)))
