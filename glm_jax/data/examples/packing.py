"""Which examples share a row: best fit by lengths, in numpy.

    lengths [5 3 3 2 6], T = 8    ->    rows [6 2] [5 3] [3]

Lengths are taken from the longest on, and all examples of one length at once: into the rows with
the least room that is enough, else into new ones. So the work grows with the number of different
lengths and of different rooms, not with the number of examples (the histogram packing of Krell et
al., arXiv:2107.02027, with best fit). Which examples of one length go where is drawn from the seed.
"""

import dataclasses

import numpy as np

from glm_jax.draws import Draws, Purpose


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows of examples: row r has the examples order[starts[r] : starts[r + 1]].

    Attributes:
      order: [examples] int64, a permutation of those that were packed.
      starts: [rows + 1] int64.
    """

    order: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def best_fit(lengths: np.ndarray, row_length: int, seed: int) -> Packed:
    """Packs examples into rows.

    Args:
      lengths: [examples] slots of each, from 1 to `row_length`.
      row_length: T.
      seed: decides which of the examples of one length go where, and the order of the rows.
    """
    count = len(lengths)
    by_length = np.argsort(lengths, kind="stable")[::-1]
    by_length = by_length[_shuffled(lengths[by_length], seed)]
    row_of = np.empty(count, np.int64)  # of the examples in the order `by_length`
    rooms: dict[int, list[np.ndarray]] = {}  # rows by the room that they have left
    rows = begin = 0
    sizes, numbers = np.unique(lengths, return_counts=True)
    for size, number in zip(sizes[::-1].tolist(), numbers[::-1].tolist(), strict=True):
        end = begin + number
        while begin < end:
            room = min((left for left in rooms if left >= size), default=None)
            if room is None:
                # New rows, each with as many examples of this length as it holds.
                each = row_length // size
                made = np.arange(rows, rows - (-(end - begin) // each))
                rows += len(made)
                filled = np.repeat(made, each)[: end - begin]
                room, chosen, taken = row_length, made, np.bincount(filled - made[0])
            else:
                held = np.concatenate(rooms.pop(room))
                each = room // size
                needed = min(len(held), -(-(end - begin) // each))
                chosen, kept = held[:needed], held[needed:]
                if len(kept):
                    rooms.setdefault(room, []).append(kept)
                filled = np.repeat(chosen, each)[: end - begin]
                taken = np.full(needed, each)
                taken[-1] = len(filled) - each * (needed - 1)
            row_of[begin : begin + len(filled)] = filled
            begin += len(filled)
            for used in np.unique(taken).tolist():
                rooms.setdefault(room - used * size, []).append(chosen[taken == used])
            rooms.pop(0, None)
    return _in_rows(by_length, _renamed(row_of, rows, seed), rows)


def one_each(count: int) -> Packed:
    """A row for each example, in their order."""
    return Packed(np.arange(count), np.arange(count + 1))


def together(groups: np.ndarray) -> Packed:
    """A row for the examples of each group, in their order: [4 4 7] -> rows [0 1] [2]."""
    begins = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    return Packed(np.arange(len(groups)), np.append(begins, len(groups)))


def _shuffled(lengths: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of examples that are in order of length, within each length."""
    return np.lexsort((_words(len(lengths), seed, 0), -lengths))


def _renamed(row_of: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """The rows in drawn order: those with the longest examples would come first."""
    return np.argsort(np.argsort(_words(rows, seed, 1), kind="stable"), kind="stable")[row_of]


def _words(count: int, seed: int, row: int) -> np.ndarray:
    # At most 2^26 draws have one row number.
    most = 1 << 26
    parts = [min(most, count - start) for start in range(0, count, most)]
    numbers = row + 2 * np.arange(len(parts))
    draws = Draws(seed, np.zeros(len(parts), np.int64), numbers)
    return draws.integers(Purpose.PACK, np.array(parts, np.int64))


def _in_rows(examples: np.ndarray, row_of: np.ndarray, rows: int) -> Packed:
    order = np.argsort(row_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])
    return Packed(examples[order], starts)
