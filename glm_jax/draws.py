"""Random draws as a pure function of what they are for: seed, epoch, row, purpose and index.

The generator is Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), computed for whole arrays of counters. One numpy Generator per row would take a quarter of
the time budget of building rows, and its draws would depend on how rows are grouped.
"""

import dataclasses
import enum
import math

import numpy as np

from glm_jax.checks import LARGEST_SEED, whole_number
from glm_jax.ragged import within_groups

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


class Purpose(enum.IntEnum):
    """What a draw decides; the draws of two purposes are independent."""

    ROW = 0  # objective of the row, single span
    SEGMENT = 1  # budget, form and length of each segment
    LENGTH = 2  # span lengths
    PLACE = 3  # where each span starts
    SENTENCE = 4  # order in which sentences are taken
    ORDER = 5  # order of the spans in part B
    SHIFT = 6  # shift of an epoch's windows
    SHUFFLE = 7  # order of an epoch's rows
    HIDE = 8  # which tokens of part B are hidden
    CONTEXT = 9  # which tokens of part A are hidden
    POSITION = 10  # shift of each segment's first positions
    SHORT = 11  # whether the row's segments are cut short, and how short
    PACK = 12  # which examples of one length share a row


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox-4x32.

    Args:
      counter: [4, n] uint64, each below 2^32; overwritten.
      key: two words below 2^32.

    Returns:
      [4, n] uint64, each below 2^32.
    """
    c0, c1, c2, c3 = counter
    for i in range(10):
        k0, k1 = ((word + i * weyl) & 0xFFFFFFFF for word, weyl in zip(key, _WEYL, strict=True))
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> _32) ^ c1 ^ np.uint64(k0)
        c2 = (p0 >> _32) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
    return np.stack([c0, c1, c2, c3])


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws of some rows.

    Attributes:
      seed: 0..2^64 - 1.
      epochs, rows: [R] int64, which rows; below 2^32 and 2^64.
    """

    seed: int
    epochs: np.ndarray
    rows: np.ndarray

    def __post_init__(self):
        whole_number("seed", self.seed, 0, LARGEST_SEED)

    def take(self, chosen: np.ndarray) -> "Draws":
        """The draws of some of the rows."""
        return dataclasses.replace(self, epochs=self.epochs[chosen], rows=self.rows[chosen])

    def integers(self, purpose: Purpose, counts: np.ndarray) -> np.ndarray:
        """Uniform draws in 0..2^32-1, `counts[r]` of them for row r, one row after the other.

        A row's draws depend neither on how many of them are asked for nor on the other rows.

        Args:
          purpose: what they decide.
          counts: [R] integers, each at most 2^26.

        Returns:
          [sum(counts)] int64.
        """
        counts = np.asarray(counts, np.int64)
        blocks = (counts + 3) >> 2  # a counter gives four draws
        counter = np.empty((4, int(blocks.sum())), np.uint64)
        counter[0] = within_groups(blocks)
        counter[0] += np.uint64(int(purpose) << 24)
        rows = self.rows.astype(np.uint64)
        counter[1] = np.repeat(self.epochs.astype(np.uint64), blocks)
        counter[2] = np.repeat(rows & _LOW, blocks)
        counter[3] = np.repeat(rows >> _32, blocks)
        words = philox4x32(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))
        flat = words.T.reshape(-1).astype(np.int64)
        surplus = (blocks << 2) - counts
        if not surplus.any():
            return flat
        first = np.cumsum(counts) - counts
        kept = np.cumsum(blocks << 2) - (blocks << 2) - first
        return flat[np.arange(int(counts.sum())) + np.repeat(kept, counts)]


def below(draws: np.ndarray, limits: np.ndarray | int) -> np.ndarray:
    """Integers in 0..limit-1 from draws in 0..2^32-1; limits up to 2^31 (bias below limit / 2^32).

    below([0, 2**31, 2**32 - 1], 10) -> [0, 5, 9]
    """
    return (np.asarray(draws, np.int64) * limits) >> 32


def unit(draws: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64, from draws in 0..2^32-1."""
    return draws * 2.0**-32


@dataclasses.dataclass(frozen=True)
class SpanLengths:
    """The distribution of span lengths: Poisson(mean) on 1..longest, renormalised.

    GLM (arXiv:2103.10360), section 2.1.

    Attributes:
      probabilities: [longest] float64, of the lengths 1, 2, ...
      thresholds: [longest] int64, the cumulative probabilities in units of 2^-32.
    """

    probabilities: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def poisson(cls, mean: float, longest: int) -> "SpanLengths":
        """From lambda and the longest length."""
        lengths = np.arange(1, longest + 1)
        logs = lengths * math.log(mean) - np.array([math.lgamma(n + 1) for n in lengths.tolist()])
        weights = np.exp(logs - logs.max())
        probabilities = weights / weights.sum()
        thresholds = np.round(np.cumsum(probabilities) * 2.0**32).astype(np.int64)
        return cls(probabilities, thresholds)

    def __call__(self, draws: np.ndarray) -> np.ndarray:
        """Lengths, int64, from draws in 0..2^32-1."""
        lengths = np.searchsorted(self.thresholds, draws, side="right") + 1
        return np.minimum(lengths, len(self.thresholds))

    @property
    def mean(self) -> float:
        """The expected length."""
        return float(self.probabilities @ np.arange(1, len(self.probabilities) + 1))

    @property
    def overshoot(self) -> float:
        """Expected excess over the budget when spans are taken until they reach it.

        The excess of a renewal process over a far level, E[l^2] / (2 E[l]) - 1/2.
        """
        squares = np.arange(1, len(self.probabilities) + 1) ** 2
        return float(self.probabilities @ squares) / (2 * self.mean) - 0.5
