"""Rows by their number in the endless sequence of epochs, of one source or of a mixture.

    OneSource(builder)                   Mixture(names, rates, builders, phases)
        .sequence(shuffle, repeat)           .sequence(shuffle, repeat)
             -> SourceRows                        -> MixedRows

A `RowStream` takes its batches from such a sequence, which gives rows of any numbers in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from glm_jax.batch import Batch
from glm_jax.data.identity import Store
from glm_jax.data.mixing import Mixing, source_seed
from glm_jax.data.order import EpochOrder
from glm_jax.errors import UserError

S = TypeVar("S", bound=Store)


class Builder(Protocol):
    """Builds rows by epoch and row index; see `glm_jax.data.rows.RowBuilder`."""

    num_rows: int
    seed: int

    @property
    def store(self) -> Store: ...

    def build(self, epochs: np.ndarray, rows: np.ndarray) -> tuple[Batch, dict[str, int]]: ...


class Rows(Protocol):
    """A sequence of rows.

    Attributes:
      num_rows: number of rows before the sequence repeats.
    """

    num_rows: int

    def __call__(self, numbers: np.ndarray) -> tuple[Batch, dict[str, int]]:
        """The rows with the given numbers, [n] integers from 0: a Batch [n, T] and its counts."""
        ...


class Source(Protocol):
    """The origin of rows: one split of one store or of several.

    Attributes:
      builders: the builders of the rows, one per store.
      num_rows: rows per epoch, summed over the stores.
      stores: rate and store of each source by name; {"": (1.0, store)} for a single source.
    """

    num_rows: int

    @property
    def builders(self) -> Sequence[Builder]: ...

    @property
    def stores(self) -> dict[str, tuple[float, Store]]: ...

    def sequence(self, shuffle: bool = True, repeat: bool = True) -> Rows:
        """The rows in their order.

        Args:
          shuffle: each epoch has its own order, by the builders' seeds; False: ascending.
          repeat: the sequence is endless; False: rows from `num_rows` on are padding.
        """
        ...


class SourceRows:
    """The rows of one source, epoch after epoch, each epoch in its own order.

    3 rows per epoch    number         0   1   2   3   4   5   6 ...
                        epoch.row      0.2 0.0 0.1 1.1 1.0 1.2 2.2
    """

    def __init__(self, builder: Builder, shuffle: bool = True, repeat: bool = True):
        """As `Source.sequence`; the builder's seed decides the order, as it does the corruption."""
        self.num_rows = builder.num_rows
        self._builder, self._repeat = builder, repeat
        self._order = EpochOrder(builder.num_rows, builder.seed) if shuffle else None

    def __call__(self, numbers: np.ndarray) -> tuple[Batch, dict[str, int]]:
        # A batch may reach into the next epoch, or span several.
        epochs, rows = np.divmod(numbers, self.num_rows)
        if self._order is not None:
            for epoch in np.unique(epochs):
                here = epochs == epoch
                rows[here] = self._order(int(epoch), rows[here])
        if not self._repeat:
            # Rows of the builder from num_rows on are all padding.
            rows = np.where(epochs == 0, rows, self.num_rows)
            epochs = np.zeros_like(rows)
        return self._builder.build(epochs, rows)


class OneSource:
    """A `Source` of one token store."""

    def __init__(self, builder: Builder):
        self.builders = [builder]
        self.num_rows = builder.num_rows

    @property
    def stores(self) -> dict[str, tuple[float, Store]]:
        return {"": (1.0, self.builders[0].store)}

    def sequence(self, shuffle: bool = True, repeat: bool = True) -> Rows:
        return SourceRows(self.builders[0], shuffle, repeat)


class Mixture:
    """A `Source` of several token stores, each with its share of the rows.

    Attributes:
      names, rates, builders, phases: of each source.
    """

    def __init__(
        self,
        names: Sequence[str],
        rates: Sequence[float],
        builders: Sequence[Builder],
        phases: Sequence[int],
    ):
        """Joins sources; `mixture` derives their seeds and phases.

        Raises:
          UserError: there are none.
        """
        if not names:
            raise UserError("a mixture must have at least one source; got none")
        self.names, self.rates, self.phases = list(names), list(rates), list(phases)
        self.builders = list(builders)
        self.num_rows = sum(builder.num_rows for builder in builders)

    @property
    def stores(self) -> dict[str, tuple[float, Store]]:
        stores = [builder.store for builder in self.builders]
        return dict(zip(self.names, zip(self.rates, stores, strict=True), strict=True))

    def sequence(self, shuffle: bool = True, repeat: bool = True) -> Rows:
        return MixedRows(self, shuffle, repeat)


def mixture(
    stores: Mapping[str, tuple[float, S]],
    seed: int,
    builder_of: Callable[[S, int], Builder],
) -> Mixture:
    """A mixture whose sources draw independently of each other.

    Args:
      stores: rate and store of each source, by its name.
      seed: of the mixture; `source_seed` derives each source's seed from it.
      builder_of: makes the builder of a store's rows from the store and a seed.
    """
    drawn = [source_seed(seed, name) for name in stores]
    builders = [
        builder_of(store, own) for (_, store), (own, _) in zip(stores.values(), drawn, strict=True)
    ]
    rates = [rate for rate, _ in stores.values()]
    return Mixture(list(stores), rates, builders, [phase for _, phase in drawn])


class MixedRows:
    """The rows of a mixture: `Mixing` assigns them to sources, each of which has its own epochs.

    The counts include `rows/NAME` for each source.
    """

    def __init__(self, mixture: Mixture, shuffle: bool = True, repeat: bool = True):
        """As `SourceRows`; without `repeat`, all rows of the first source, then of the next, .."""
        self.num_rows = mixture.num_rows
        self._names = mixture.names
        self._sources = [SourceRows(builder, shuffle, repeat) for builder in mixture.builders]
        self._deal = Mixing(mixture.rates, mixture.phases) if repeat else self._in_turn

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
        # Numbers beyond the last row are padding of the last source.
        source = np.minimum(np.searchsorted(ends, numbers, side="right"), len(ends) - 1)
        return source, numbers - np.append(0, ends)[source]
