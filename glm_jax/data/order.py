"""The order of rows within an epoch: a permutation that is computed, not stored."""

import functools
import math

import numpy as np

from glm_jax.draws import Draws, Purpose, below

_ROUNDS = 6


class EpochOrder:
    """A pseudo-random permutation of 0..size-1 for each epoch.

    A generalised Feistel network (Black and Rogaway, "Ciphers with arbitrary finite domains",
    2002): a number is written as two digits x < a, y < b with a * b >= size, and the digits are
    shifted in turn by random functions of each other, tables of about sqrt(size) draws. Numbers
    from `size` on are permuted again until they fall below it.
    """

    def __init__(self, size: int, seed: int):
        """For `size` rows; epochs of the same seed have orders of their own."""
        self._size, self._seed = size, seed
        self._a = math.isqrt(size - 1) + 1
        self._b = -(-size // self._a)
        self._tables = functools.lru_cache(maxsize=4)(self._draw_tables)

    def __call__(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """The rows at places `indices` (int64, each below size) of an epoch."""
        rows = self._permute(epoch, indices)
        while (outside := rows >= self._size).any():
            rows[outside] = self._permute(epoch, rows[outside])
        return rows

    def _permute(self, epoch: int, numbers: np.ndarray) -> np.ndarray:
        x, y = np.divmod(numbers, self._b)
        for to_x, to_y in self._tables(epoch):
            x = (x + to_x[y]) % self._a
            y = (y + to_y[x]) % self._b
        return x * self._b + y

    def _draw_tables(self, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each pair of rounds, shifts of x by y and of y by x."""
        a, b = self._a, self._b
        draws = Draws(self._seed, np.full(_ROUNDS, epoch), np.arange(_ROUNDS))
        words = draws.integers(Purpose.SHUFFLE, np.full(_ROUNDS, a + b)).reshape(_ROUNDS, a + b)
        return [(below(line[:b], a), below(line[b:], b)) for line in words]
