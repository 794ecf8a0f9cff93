"""Rows of an example store: row i of every epoch has the same examples, in an order of the epoch.

    row     | example 7           | example 3    | padding
    attend  [0, ..)                [s, ..)        empty

Each example is a segment of its own: it attends to itself alone, and its positions are its own.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from glm_jax.batch import ANSWER, Batch, empty_fields
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.data.examples.example import FIELDS
from glm_jax.data.examples.packing import best_fit, one_each, together
from glm_jax.data.examples.store import Examples, ExampleStore
from glm_jax.errors import UserError
from glm_jax.ragged import group_of, starts, sums, within_groups

# Examples whose targets are looked at together.
_AT_ONCE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Cut:
    """What the length of a row leaves of a split's examples.

    Attributes:
      kept: [examples] int64, those with something to learn, ascending.
      sizes: [examples] int64, slots of each.
      cut: number of examples that were longer than the row.
      empty: examples that are left out, since nothing is left of their targets, ascending.
    """

    kept: np.ndarray
    sizes: np.ndarray
    cut: int
    empty: np.ndarray


class ExampleRowBuilder:
    """Builds the rows of one split of a store.

    Attributes:
      num_rows: rows per epoch.
      store: the examples.
      length: T.
      seed: of which examples share a row, and of the order of rows.
      summary: "train: 12,034 examples, 20 cut to the row".
      cuts: whether the length of a row has cut an example.
    """

    def __init__(
        self,
        split: str,
        store: ExampleStore,
        length: int,
        packed: bool,
        seed: int,
        sharing: str | None = None,
        left_out: str = "without an answer after the cut",
    ):
        """Packs the split's examples.

        Args:
          split: its name.
          store: of examples.
          length: T; longer examples are cut at their end.
          packed: several examples in a row.
          seed: see `seed`.
          sharing: what the examples of one line are, "candidates" or "answers", which share a row
            of their own or are left out together; None: examples stand for themselves.
          left_out: what an example is of which nothing is left to learn, for messages.

        Raises:
          UserError: the split is empty, or in no example of it is anything left to learn.
        """
        self.store, self.seed, self.length = store, seed, length
        self._examples = store.splits[split]
        self._offsets = np.asarray(self._examples.offsets)
        cut = whole_lines(self._examples, length) if sharing else cut_of(self._examples, length)
        why = left_out if sharing is None else f"whose {sharing} do not fit a row"
        self.summary = _summary(split, store, cut, why)
        self.cuts = bool(cut.cut or len(cut.empty))
        if not len(cut.kept):
            raise UserError(
                f"nothing is learnt from the split {split!r}: {self.summary}; "
                + (
                    f"raise data.sequence_length={length}"
                    if len(cut.empty)
                    else "give data.source more examples or change data.eval_fraction"
                )
            )
        self._kept, self._sizes = cut.kept, cut.sizes
        if sharing:
            self._packed = together(_lines(self._examples)[cut.kept])
        elif packed:
            self._packed = best_fit(cut.sizes[cut.kept], length, seed)
        else:
            self._packed = one_each(len(cut.kept))
        self.num_rows = len(self._packed)

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """Builds rows; an epoch decides nothing in them.

        Args:
          epochs: [B] integers.
          rows: [B] integers, at least 0; rows from `num_rows` on are all padding.

        Returns:
          A numpy Batch [B, T] and the counts by `Corruptor.statistics_names`, and `examples`.
        """
        chosen, sizes, row_of, start = self._placed(rows)
        fields = self._fields(chosen, sizes, row_of, start, len(rows))
        statistics = dict.fromkeys(Corruptor.statistics_names, 0) | {
            "rows": len(rows),
            "places_used": int(sizes.sum()),
            "source_tokens": int(sizes.sum()),
            "targets": int(fields["loss_weights"].sum()),
            "examples": len(chosen),
        }
        return Batch(**fields), statistics

    def tokens_of(self, rows: np.ndarray) -> np.ndarray:
        """Which token of the split's examples is in each slot: [B, T] int64, -1 without one.

        Args:
          rows: as of `build`.
        """
        return self._in_slots(rows, lambda example, index: self._offsets[example] + index, -1)

    @property
    def has_margins(self) -> bool:
        """Whether its examples are pairs with margins."""
        return self._examples.margins is not None

    def margins_of(self, rows: np.ndarray) -> np.ndarray:
        """The margin of each slot's example: [B, T] float32, 0 in slots without a token.

        Args:
          rows: as of `build`.
        """
        margins = self._examples.margins
        assert margins is not None
        return self._in_slots(rows, lambda example, index: np.asarray(margins)[example], 0)

    def examples_of(self, rows: np.ndarray) -> np.ndarray:
        """The number of the first example in each row: [B] int64; -1 without one."""
        chosen, _, row_of, _ = self._placed(rows)
        found = np.full(len(rows), -1, np.int64)
        # The last that is written stays.
        found[row_of[::-1]] = chosen[::-1]
        return found

    def _in_slots(
        self, rows: np.ndarray, value: Callable[[np.ndarray, np.ndarray], np.ndarray], empty: int
    ) -> np.ndarray:
        """[B, T] a value of each slot's example and of its token's index there; `empty` in slots
        without a token."""
        chosen, sizes, row_of, start = self._placed(rows)
        index = within_groups(sizes)
        values = value(np.repeat(chosen, sizes), index)
        found = np.full(len(rows) * self.length, empty, values.dtype)
        found[np.repeat(row_of * self.length + start, sizes) + index] = values
        return found.reshape(len(rows), self.length)

    def _placed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The examples of rows, their sizes, the row of each, and its first slot there."""
        rows = np.asarray(rows, np.int64)
        inside = rows < self.num_rows
        first = self._packed.starts[np.where(inside, rows, 0)]
        counts = np.where(inside, self._packed.starts[np.where(inside, rows, 0) + 1] - first, 0)
        chosen = self._kept[self._packed.order[np.repeat(first, counts) + within_groups(counts)]]
        sizes = self._sizes[chosen]
        row_of = group_of(counts)
        # Where each example starts in its row: what the row holds before it.
        start = np.cumsum(sizes) - sizes - starts(sums(sizes, counts))[row_of]
        return chosen, sizes, row_of, start

    def _fields(
        self,
        chosen: np.ndarray,
        sizes: np.ndarray,
        row_of: np.ndarray,
        start: np.ndarray,
        num_rows: int,
    ) -> dict[str, np.ndarray]:
        """The fields of a Batch [B, T] with examples of `sizes` tokens at `start` in their rows."""
        special, index = self.store.special, within_groups(sizes)
        source = np.repeat(self._offsets[chosen], sizes) + index
        slot = np.repeat(row_of * self.length + start, sizes) + index
        fields = empty_fields(num_rows * self.length, special.pad)
        values = {name: getattr(self._examples, name)[source] for name in FIELDS}
        learnt = values.pop("learnt")
        for name, found in values.items():
            fields[name][slot] = found
        fields["targets"][slot[~learnt]] = special.pad
        fields["loss_weights"][slot] = learnt
        fields["objective"][slot] = np.where(learnt, ANSWER, 0)
        own = np.repeat(start, sizes)
        prefix = np.repeat(np.asarray(self._examples.prefix)[chosen], sizes)
        fields["attend_start"][slot] = own
        # Part A is no longer than what is left of an example.
        seen = np.minimum(np.maximum(prefix, index + 1), np.repeat(sizes, sizes))
        fields["attend_end"][slot] = own + seen
        return {name: value.reshape(num_rows, self.length) for name, value in fields.items()}


def cut_of(examples: Examples, length: int) -> Cut:
    """What rows of `length` slots leave of examples; each keeps its beginning.

    Args:
      examples: of a split.
      length: T.
    """
    offsets = np.asarray(examples.offsets)
    whole = np.diff(offsets)
    sizes = np.minimum(whole, length)
    left = np.zeros(len(sizes), bool)
    for start in range(0, len(sizes), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        first = offsets[start]
        # Running counts of what is learnt, so that a part is one difference.
        learnt = examples.learnt[first : offsets[min(start + _AT_ONCE, len(sizes))]]
        total = np.concatenate([[0], np.cumsum(learnt, dtype=np.int64)])
        begin = offsets[:-1][part] - first
        left[part] = total[begin + sizes[part]] > total[begin]
    kept = np.flatnonzero(left)
    return Cut(kept, sizes, int((whole > length)[left].sum()), np.flatnonzero(~left))


def whole_lines(examples: Examples, length: int) -> Cut:
    """The examples of those lines whose examples fit a row of `length` slots together."""
    sizes, lines = np.diff(np.asarray(examples.offsets)), _lines(examples)
    fits = np.bincount(lines, sizes, minlength=1)[lines] <= length if len(lines) else lines > 0
    return Cut(np.flatnonzero(fits), sizes, 0, np.flatnonzero(~fits))


def _lines(examples: Examples) -> np.ndarray:
    """[examples] a number for the line that each is from, 0, 0, 1, .."""
    origins = np.asarray(examples.origins)
    changes = (np.diff(origins, axis=0) != 0).any(axis=1)
    return np.concatenate([[0], np.cumsum(changes)])[: len(origins)].astype(np.int64)


def _summary(split: str, store: ExampleStore, cut: Cut, why: str) -> str:
    """ "train: 12,034 examples, 20 cut to the row, 1 without an answer after the cut: first .."."""
    said = f"{split}: {len(cut.sizes):,} examples"
    if cut.cut:
        said += f", {cut.cut:,} cut to the row"
    if len(cut.empty):
        first = store.place(split, int(cut.empty[0]))
        said += f", {len(cut.empty):,} {why}: first {first}"
    return said
