"""Packs short rows into rows of T slots: concatenates their fields and moves the key intervals.

SeqIO's own packer drops zeros, and with them first positions and loss weights. Here the length of a
row is that of its fields.
"""

from collections.abc import Mapping

import numpy as np

from glm_jax.ragged import within_groups

_BOUNDS = ("attend_start", "attend_end")


def first_fit(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts each segment into the first row that has room for it.

        sizes [5 4 3 2], length 8  ->  row [0 1 0 1], offset [0 0 5 4]

    Args:
      sizes: [n] slots of each segment, each at most `length`.
      length: T.

    Returns:
      (row, offset): the row of each segment and its first slot in that row, [n] each.
    """
    used: list[int] = []
    rows, offsets = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    for index, size in enumerate(sizes.tolist()):
        row = next((r for r, filled in enumerate(used) if filled + size <= length), len(used))
        if row == len(used):
            used.append(0)
        rows[index], offsets[index] = row, used[row]
        used[row] += size
    return rows, offsets


def pack_rows(
    fields: Mapping[str, np.ndarray], sizes: np.ndarray, length: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Packs rows, without the padding at their ends; each still attends only to itself.

        tokens      [5 6 7 0], [8 9]            ->  [5 6 7 8 9 0]
        attend_end  [3 3 3 0], [1 2]                [3 3 3 4 5 0]

    Args:
      fields: of a Batch by name, the rows concatenated: [sum(sizes)] each.
      sizes: [n] slots of each row, at most `length`.
      length: T.
      pad_id: tokens and targets of padding.

    Returns:
      The fields of the packed rows, [rows, T] each.
    """
    ends = np.cumsum(sizes)
    slots = np.arange(int(sizes.sum()))
    seen = np.where(fields["attend_end"] > 0, slots + 1, 0)
    starts = ends - sizes
    used = np.array([seen[a:b].max(initial=a) - a for a, b in zip(starts, ends, strict=True)], int)
    rows, offsets = first_fit(used, length)
    kept = np.repeat(starts, used) + within_groups(used)
    target = np.repeat(rows * length + offsets, used) + within_groups(used)
    packed = {}
    for name, values in fields.items():
        count = int(rows.max(initial=-1)) + 1
        fill = pad_id if name in ("tokens", "targets") else 0
        out = np.full(count * length, fill, values.dtype)
        moved = values[kept]
        if name in _BOUNDS:
            # An empty interval, 0..0, becomes one at the row's offset: still empty.
            moved = moved + np.repeat(offsets, used).astype(values.dtype)
        out[target] = moved
        packed[name] = out.reshape(count, length)
    return packed
