"""Rows by their number in the endless sequence of epochs, of one source or of several mixed.

What a `RowStream` cuts its batches from; a sequence is asked for any numbers, in any order.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from glm_jax.batch import Batch
from glm_jax.data.mixing import Mixing, source_seed
from glm_jax.data.order import EpochOrder
from glm_jax.data.rows import Builder
from glm_jax.data.store import TokenStore
from glm_jax.errors import UserError


class Rows(Protocol):
    """A sequence of rows.

    Attributes:
      num_rows: how many there are before they come again.
    """

    num_rows: int

    def __call__(self, numbers: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """The rows with these numbers, [n] integers from 0: a Batch [n, T] and what it held."""
        ...


class SourceRows:
    """The epochs of one source, each in an order of its own.

    3 rows per epoch    number         0   1   2   3   4   5   6 ...
                        epoch.row      0.2 0.0 0.1 1.1 1.0 1.2 2.2
    """

    def __init__(self, builder: Builder, seed: int, shuffle: bool = True, repeat: bool = True):
        """Args:
        builder: of the rows.
        seed: of their order.
        shuffle: an order of its own for each epoch; False: ascending.
        repeat: without end; False: numbers from `num_rows` on are rows of padding.
        """
        self.num_rows = builder.num_rows
        self._builder, self._repeat = builder, repeat
        self._order = EpochOrder(builder.num_rows, seed) if shuffle else None

    def __call__(self, numbers: np.ndarray) -> tuple[Batch, dict[str, int]]:
        # A batch may reach into the next epoch, or over several.
        epochs, rows = np.divmod(numbers, self.num_rows)
        if self._order is not None:
            for epoch in np.unique(epochs):
                here = epochs == epoch
                rows[here] = self._order(int(epoch), rows[here])
        if not self._repeat:
            # The builder makes rows from num_rows on all padding.
            rows = np.where(epochs == 0, rows, self.num_rows)
            epochs = np.zeros_like(rows)
        return self._builder.build(epochs, rows)


class Mixture:
    """Several sources and their rates; in place of a `RowBuilder` where rows of all are wanted.

    Attributes:
      names, rates, builders: of each source.
      num_rows: rows of an epoch of each source together.
    """

    def __init__(self, names: Sequence[str], rates: Sequence[float], builders: Sequence[Builder]):
        """Joins sources.

        Raises:
          UserError: there are none.
        """
        if not names:
            raise UserError("a mixture must have at least one source; got none")
        self.names, self.rates, self.builders = list(names), list(rates), list(builders)
        self.num_rows = sum(builder.num_rows for builder in builders)

    @property
    def stores(self) -> dict[str, tuple[float, TokenStore]]:
        """Rate and store of each source, by its name."""
        stores = [builder.store for builder in self.builders]
        return dict(zip(self.names, zip(self.rates, stores, strict=True), strict=True))


class MixedRows:
    """Rows of a mixture: each source has its turns by `Mixing`, and epochs of its own.

    What is counted has `rows/NAME` besides, for each source.
    """

    def __init__(self, mixture: Mixture, seed: int, shuffle: bool = True, repeat: bool = True):
        """As `SourceRows`; without `repeat`, all rows of the first source, then of the second, ..

        Where a source's order is drawn, it is from the seed that `source_seed` gives.
        """
        seeds = [source_seed(seed, name)[0] for name in mixture.names]
        phases = [source_seed(seed, name)[1] for name in mixture.names]
        self.num_rows = mixture.num_rows
        self._names = mixture.names
        self._sources = [
            SourceRows(builder, own, shuffle, repeat)
            for builder, own in zip(mixture.builders, seeds, strict=True)
        ]
        self._deal = Mixing(mixture.rates, phases) if repeat else self._in_turn

    def __call__(self, numbers: np.ndarray) -> tuple[Batch, dict[str, int]]:
        source, index = self._deal(numbers)
        fields: dict[str, np.ndarray] = {}
        counted: dict[str, int] = {}
        for k, name in enumerate(self._names):
            members = np.flatnonzero(source == k)
            counted[f"rows/{name}"] = len(members)
            if not len(members):
                continue
            part, statistics = self._sources[k](index[members])
            for key, value in statistics.items():
                counted[key] = counted.get(key, 0) + value
            for key, value in part.to_dict().items():
                if key not in fields:
                    fields[key] = np.empty((len(numbers), *value.shape[1:]), value.dtype)
                fields[key][members] = value
        return Batch(**fields), counted

    def _in_turn(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = np.cumsum([source.num_rows for source in self._sources])
        # Numbers behind the last row are the last source's padding.
        source = np.minimum(np.searchsorted(ends, numbers, side="right"), len(ends) - 1)
        return source, numbers - np.append(0, ends)[source]


def rows_of(
    builder: Builder | Mixture, seed: int, shuffle: bool = True, repeat: bool = True
) -> Rows:
    """The sequence of a source or of a mixture."""
    kind = MixedRows if isinstance(builder, Mixture) else SourceRows
    return kind(builder, seed, shuffle, repeat)  # type: ignore[arg-type]
