"""Prefetching: a thread puts batches on the devices while the previous step runs."""

import dataclasses
import queue
import threading
from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.sharding import NamedSharding

from glm_jax.batch import NUM_OBJECTIVES, OBJECTIVES, Batch
from glm_jax.data.identity import Identity
from glm_jax.training.distributed import share
from glm_jax.training.train_state import TrainState

B = TypeVar("B", bound=Batch)


@runtime_checkable
class Stream(Protocol):
    """What training reads: a `glm_jax.data.stream.RowStream`, or one that wraps it.

    Attributes:
      num_rows: rows per epoch.
    """

    num_rows: int

    @property
    def data(self) -> Identity: ...

    @property
    def statistics(self) -> dict[str, int]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> bytes: ...

    def set_state(self, state: bytes) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Fed:
    """A global Batch and the stream's state after it.

    Attributes:
      batch: [B, T] over all hosts, on the devices.
      stream_state: of the stream after this batch, for a checkpoint after its step.
      statistics: the stream's counts over this host's rows of this batch, and `targets/NAME`, the
        number of targets of each objective in these rows.
      metrics: of the batch, for the row of its step.
    """

    batch: Batch
    stream_state: bytes
    statistics: dict[str, int]
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def to_devices(batch: B, sharding: NamedSharding) -> B:
    """The global Batch, sharded; `batch` holds this host's rows of it."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def own_to_devices(batch: B, sharding: NamedSharding) -> B:
    """`to_devices` of a batch that every process has whole: each gives its rows."""
    own, processes = share()
    return to_devices(jax.tree.map(lambda leaf: np.split(leaf, processes)[own], batch), sharding)


def count_targets(batch: Batch) -> dict[str, int]:
    """The number of targets of each objective: {"targets/span": 31, "targets/sentence": 0, ..}."""
    predicted = batch.objective[batch.loss_weights > 0]
    counts = np.bincount(predicted, minlength=NUM_OBJECTIVES)
    return {f"targets/{name}": int(counts[group]) for name, group in OBJECTIVES.items()}


class Feed:
    """Iterator of `Fed` that prepares up to `depth` batches ahead.

    Attributes:
      category: of `Goodput`, what the wait for a batch is.
      between: whether a run may be saved and stopped after the last batch.
    """

    category = "waiting_for_data"
    between = True

    def __init__(self, stream: Stream, sharding: NamedSharding, depth: int = 2):
        """Starts the thread.

        Args:
          stream: only the thread may use it from now on.
          sharding: of the global batch.
          depth: maximum number of batches that are ready.
        """
        self._stream = stream
        self._sharding = sharding
        self._ready: queue.Queue[Fed | Exception] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        counted: dict[str, int] = dict(self._stream.statistics)
        try:
            while not self._closed.is_set():
                rows = next(self._stream)
                batch = to_devices(rows, self._sharding)
                total = dict(self._stream.statistics)
                new = {name: total[name] - counted.get(name, 0) for name in total}
                counted = total
                self._put(Fed(batch, self._stream.get_state(), new | count_targets(rows)))
        except Exception as error:
            self._put(error)

    def _put(self, item: Fed | Exception) -> None:
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> "Feed":
        return self

    def take(self, state: TrainState) -> Fed:
        """The batch of the next step, whatever the state before it."""
        del state
        return next(self)

    def __next__(self) -> Fed:
        item = self._ready.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Ends the thread and closes the stream."""
        self._closed.set()
        self._thread.join()
        self._stream.close()
