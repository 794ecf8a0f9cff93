"""The source of each row of a mixture, as a pure function of the row's number.

The source of row n, and the number of rows that this source has given before, are computed from n
alone. So the state of a mixture is one integer, as that of a single source, and each host can take
its share of the numbers.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Mixing:
    """Assigns the numbers 0, 1, 2, ... to sources, as evenly as their rates allow.

        rates 0.5, 0.25, 0.25     n        0 1 2 3 4 5 6 7
        phases 0                  source   2 0 1 0 2 0 1 0
                                  index    0 0 0 1 1 2 1 3     rows that the source has given before

    The first source takes number n if floor(rate * n + phase) increases from n to n + 1 (a Beatty
    sequence: its count always differs from rate * n by less than one). The remaining numbers,
    renumbered from 0, are shared by the other sources in the same way. The phases come from the
    seed.
    """

    def __init__(self, rates: Sequence[float], phases: Sequence[int]):
        """Makes the mixing of K sources.

        Args:
          rates: [K] above 0, relative to each other.
          phases: [K] integers in 0..2^32-1.
        """
        self._shares = []
        for k in range(len(rates) - 1):
            share = round(rates[k] / sum(rates[k:]) * 2**32)
            self._shares.append(np.uint64(min(max(share, 1), 2**32 - 1)))
        self._phases = [np.uint64(phase) for phase in phases]

    def __call__(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each number and its index among the source's own rows.

        Args:
          numbers: [n] integers from 0, below 2^63.

        Returns:
          source, index: [n] int64 each.
        """
        left = np.asarray(numbers).astype(np.uint64)
        source = np.full(len(left), len(self._shares))
        index = np.zeros(len(left), np.uint64)
        waiting = np.arange(len(left))  # indices of numbers without a source yet
        for k, share in enumerate(self._shares):
            before = _count(left, share, self._phases[k])
            takes = _count(left + np.uint64(1), share, self._phases[k]) > before
            source[waiting[takes]], index[waiting[takes]] = k, before[takes]
            waiting, left = waiting[~takes], (left - before)[~takes]
        index[waiting] = left
        return source, index.astype(np.int64)


def _count(numbers: np.ndarray, share: np.uint64, phase: np.uint64) -> np.ndarray:
    """floor((numbers * share + phase) / 2^32), exact in 64 bits."""
    return (numbers >> _32) * share + (((numbers & _LOW) * share + phase) >> _32)


def source_seed(seed: int, name: str) -> tuple[int, int]:
    """The seed of a source's rows, below 2^64, and its phase, below 2^32.

    They depend only on the mixture's seed and the source's name. So sources draw independently, and
    a source that is added does not change the rows of the others, only when they come.
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=12).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
