"""The SeqIO data source of a corpus: reads any document by its index."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config.data import DataConfig
from glm_jax.data.documents import SPLITS, Corpus, scan

# Documents read per call from TensorFlow into Python.
_BATCH = 64

# The largest number of shards that SeqIO's offline cache splits a split into.
_MAX_SHARDS = 64


class DocumentSource(seqio.DataSource):
    """The documents of a `DataConfig` as `{"text": string}`.

    The files are first read when a dataset is asked for. A dataset consists of document indices,
    whose texts are read by a stateless function. So its iterators can be saved and restored
    exactly, it is shuffled as a whole, and any number of hosts can share it.
    """

    def __init__(self, data: DataConfig):
        """Stores the config; reads nothing yet."""
        self._data = data
        super().__init__(splits=SPLITS)

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The scanned corpus.

        Raises:
          ValueError: no such files, or no text in them.
        """
        return scan(self._data)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    @property
    def performs_internal_shuffling(self) -> bool:
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        """The names of the shards of an offline cache."""
        count = min(_MAX_SHARDS, len(self.corpus.indices(split)))
        return [f"{split}-{index}" for index in range(count)]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """The documents of a split; the last three arguments, of SeqIO's interface, are ignored."""
        indices = self.corpus.indices(split)
        dataset = tf.data.Dataset.from_tensor_slices(indices)
        if shard_info is not None:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)
        if shuffle:
            dataset = dataset.shuffle(len(indices), seed=seed)
        dataset = dataset.batch(_BATCH)
        return dataset.map(self._read, num_parallel_calls=2).unbatch()

    def _read(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        def texts(numbers: np.ndarray) -> np.ndarray:
            return np.array([self.corpus.read(i).encode("utf-8") for i in numbers], object)

        # With a stateful function an iterator could not be saved.
        text = tf.numpy_function(texts, [indices], tf.string, stateful=False)
        return {"text": tf.ensure_shape(text, [None])}
