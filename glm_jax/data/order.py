"""The order of the rows of an epoch: a permutation that is computed, not stored."""

import functools
import math

import numpy as np

from glm_jax.draws import Draws, Purpose, below

_ROUNDS = 6


class EpochOrder:
    """A pseudo-random permutation of 0..size-1 for each epoch.

    A generalised Feistel network (Black and Rogaway, "Ciphers with arbitrary finite domains",
    2002). A number is written as two digits x < a and y < b with a * b >= size. Each digit is
    shifted in turn by a random function of the other, a table of about sqrt(size) draws. Results
    not below `size` are permuted again until they are.
    """

    def __init__(self, size: int, seed: int):
        """Makes the orders of `size` rows; each epoch has its own."""
        self._size, self._seed = size, seed
        self._a = math.isqrt(size - 1) + 1
        self._b = -(-size // self._a)
        self._tables = functools.lru_cache(maxsize=4)(self._draw_tables)

    def __call__(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """The rows that come at `indices` (int64, each below size) in the order of an epoch."""
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
        """For each pair of rounds, the shifts of x by y and of y by x."""
        a, b = self._a, self._b
        draws = Draws(self._seed, np.full(_ROUNDS, epoch), np.arange(_ROUNDS))
        words = draws.integers(Purpose.SHUFFLE, np.full(_ROUNDS, a + b)).reshape(_ROUNDS, a + b)
        return [(below(line[:b], a), below(line[b:], b)) for line in words]
