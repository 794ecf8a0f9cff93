"""The stream of Batches that a host trains on; its state is one integer."""

import sys

import numpy as np

from glm_jax.batch import Batch
from glm_jax.checks import whole_number
from glm_jax.data.identity import Identity, identity
from glm_jax.data.sequence import Source
from glm_jax.errors import UserError


class RowStream:
    """Iterator of numpy Batches: one host's rows of each global batch.

    Global batch j holds the rows with numbers j * B .. (j + 1) * B - 1 of the endless sequence of
    epochs, each epoch in its own order. Host h of H gets the h-th block of B / H rows.
    Concatenated in the order of the hosts, the batches are the same for every H:

        B = 4, 3 rows per epoch      batch 0           batch 1
        rows (epoch.row)             0.2 0.0 0.1 1.1   1.0 1.2 2.2 2.0
        host 0 of 2                  0.2 0.0           1.0 1.2
        host 1 of 2                  0.1 1.1           2.2 2.0

    A batch is built when it is asked for. Training asks ahead of its steps, in a separate thread
    (`glm_jax.training.feed`).

    Attributes:
      num_rows: rows per epoch (for a mixture, summed over its sources).
      statistics: counts by `Corruptor.statistics_names` over this host's rows since the creation of
        the stream.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        shard_index: int = 0,
        num_shards: int = 1,
        shuffle: bool = True,
        repeat: bool = True,
    ):
        """Opens the stream at its first batch.

        Args:
          source: of the rows; its seed decides the order.
          batch_size: B, rows per batch over all hosts.
          shard_index, num_shards: h and H.
          shuffle: each epoch has its own order; False: ascending.
          repeat: the stream is endless; False: one epoch, its last batch filled up with padding.

        Raises:
          ValueError: a batch that the hosts cannot share evenly, or a shard_index outside
            0..num_shards-1.
        """
        whole_number("num_shards", num_shards)
        whole_number("shard_index", shard_index)
        whole_number("batch_size", batch_size)
        if num_shards < 1 or not 0 <= shard_index < num_shards:
            raise UserError(
                f"shard_index must lie in 0..num_shards-1; got shard_index={shard_index}, "
                f"num_shards={num_shards}"
            )
        if batch_size < 1 or batch_size % num_shards:
            raise UserError(
                "data.batch_size must be a multiple of the number of hosts; got "
                f"{batch_size} rows for {num_shards} hosts"
            )
        self.num_rows = source.num_rows
        self._stores = source.stores
        self._rows = source.sequence(shuffle, repeat)
        self._batch_size = batch_size
        share = batch_size // num_shards
        self._share = np.arange(shard_index * share, (shard_index + 1) * share)
        self._end = sys.maxsize // batch_size if repeat else -(-source.num_rows // batch_size)
        self._next = 0
        self._closed = False
        self.statistics: dict[str, int] = {}

    def __iter__(self) -> "RowStream":
        return self

    @property
    def data(self) -> Identity:
        """The identity of the data that the rows are made from."""
        return identity(self._stores)

    def __next__(self) -> Batch:
        """The next Batch.

        Raises:
          UserError: the token store turned out to be damaged.
        """
        if self._closed:
            raise ValueError("the row stream is closed")
        for _, store in self._stores.values():
            store.check()
        if self._next >= self._end:
            raise StopIteration
        batch, counted = self._rows(self._next * self._batch_size + self._share)
        self._next += 1
        for name, value in counted.items():
            self.statistics[name] = self.statistics.get(name, 0) + value
        return batch

    def get_state(self) -> bytes:
        """The number of the next batch, as decimal digits."""
        return str(self._next).encode()

    def set_state(self, state: bytes) -> None:
        """Continues where a stream of the same data, batch size and seed was, on any hosts.

        Raises:
          ValueError: `state` does not come from `get_state`.
        """
        digits = state if isinstance(state, bytes) else b""
        if not digits.isdigit() or int(digits) > self._end:
            raise ValueError(f"not the state of a row stream: {state!r}")
        self._next = int(digits)

    def close(self) -> None:
        """Closes the stream: a further `next` raises ValueError."""
        self._closed = True
