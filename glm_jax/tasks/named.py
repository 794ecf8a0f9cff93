"""Sources given by name, not by files: datasets of TensorFlow Datasets, and SeqIO tasks.

data.source          read as               split "eval"
tfds:my_text:1.0.0   {"text": string}      its own "eval", "validation" or "test"; if it has
task:my_task         {"text": string} or   none, part of "train", chosen by the hash of each
                     {"tokens": ids}       text, as with files
"""

import collections
import functools
import hashlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config.data import DataConfig
from glm_jax.data.cutting import cut
from glm_jax.data.documents import SPLITS
from glm_jax.data.records import checked
from glm_jax.errors import UserError, did_you_mean
from glm_jax.tokenizers.tokenizer import load_tokenizer

_EVAL_NAMES = ("eval", "validation", "test")
# Examples passed from TensorFlow to Python per call.
_BATCH = 64


def registered(data: DataConfig) -> seqio.Task | seqio.Mixture:
    """The task or mixture of a "task:NAME" source.

    Raises:
      UserError: `data.task_module` cannot be imported, or nothing of that name is registered.
    """
    if data.task_module is not None:
        try:
            importlib.import_module(data.task_module)
        except ImportError as error:
            raise UserError(
                f"cannot import data.task_module={data.task_module!r}: {error}"
            ) from None
    if data.seqio_cache_dir is not None:
        seqio.add_global_cache_dirs([os.path.expanduser(data.seqio_cache_dir)])
    name = data.source.removeprefix("task:")
    names = seqio.TaskRegistry.names() | seqio.MixtureRegistry.names()
    if name not in names:
        raise UserError(
            f"no SeqIO task or mixture {name!r} is registered{did_you_mean(name, names)}; "
            "data.task_module is the module that registers it"
        )
    return seqio.get_mixture_or_task(name)


class NamedSource(seqio.DataSource):
    """The texts of a `DataConfig` with a "tfds:" or "task:" source, by split.

    Attributes:
      skipped: number of examples left out, by reason, counted while reading.
    """

    def __init__(self, data: DataConfig):
        """Stores the config; reads nothing yet."""
        self._data = data
        self.skipped: collections.Counter[str] = collections.Counter()
        super().__init__(splits=SPLITS)

    @functools.cached_property
    def origin(self) -> "_Dataset | _Task":
        """The dataset or task that the examples come from.

        Raises:
          UserError: there is nothing of that name, or it has no split "train".
        """
        data = self._data
        origin = _Dataset(data) if data.source.startswith("tfds:") else _Task(data)
        if "train" not in origin.splits:
            raise UserError(
                f"data.source={data.source!r} must have a split 'train'; it has {origin.splits}"
            )
        return origin

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The names of the files of the origin's split."""
        return self.origin.source.list_shards(self._split_of_origin(split))

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
        """`{"text": string}` or `{"tokens": [length] int32}`; see `DocumentSource.get_dataset`.

        Raises:
          UserError: the examples hold neither a text nor ids of `data.tokenizer`.
        """
        origin = self._split_of_origin(split)
        dataset = self.origin.dataset(origin, shuffle, seed, shard_info)
        key = self._key(dataset.element_spec)
        if key == self._data.text_field:
            dataset = dataset.map(lambda example: {"text": example[key]})
            dataset = dataset.batch(_BATCH).map(self._tidied).unbatch()
        else:
            dataset = dataset.map(lambda example: {"tokens": tf.cast(example[key], tf.int32)})
        divided = self._split_of_origin("eval") == "train"
        return self._half(dataset, split) if divided else dataset

    def _split_of_origin(self, split: str) -> str:
        """The origin's split that is read; "train" for "eval" if it has no split for that."""
        if split == "train":
            return split
        return next((name for name in _EVAL_NAMES if name in self.origin.splits), "train")

    def _key(self, spec: Mapping[str, tf.TensorSpec]) -> str:
        """The key of the text, or else of the ids."""
        field = self._data.text_field
        text = spec.get(field)
        if isinstance(text, tf.TensorSpec) and (text.dtype, text.shape.rank) == (tf.string, 0):
            return field
        fingerprint = load_tokenizer(self._data.tokenizer).fingerprint
        for key in ("tokens", "targets"):
            ids, used = spec.get(key), self.origin.fingerprint(key)
            if ids is None or ids.dtype not in (tf.int32, tf.int64) or ids.shape.rank != 1:
                continue
            if used != fingerprint:
                raise UserError(
                    f"data.source={self._data.source!r} gives ids of another vocabulary than "
                    f"data.tokenizer={self._data.tokenizer!r}"
                )
            return key
        raise UserError(
            f"data.source={self._data.source!r} must give a text under data.text_field="
            f"{field!r} or ids under 'tokens' or 'targets'; it gives {sorted(spec)}"
        )

    def _tidied(self, examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The documents of texts; texts that are not valid are left out and counted."""

        def good(texts: np.ndarray) -> np.ndarray:
            kept: list[bytes] = []
            for text in texts:
                try:
                    kept += [part.encode() for part in cut(checked(text.decode("utf-8")))]
                except UnicodeDecodeError:
                    self.skipped["not UTF-8"] += 1
                except ValueError as error:
                    self.skipped[str(error)] += 1
            return np.array(kept, object)

        # With a stateful function an iterator could not be saved.
        texts = tf.numpy_function(good, [examples["text"]], tf.string, stateful=False)
        return {"text": tf.ensure_shape(texts, [None])}

    def _half(self, dataset: tf.data.Dataset, split: str) -> tf.data.Dataset:
        """The examples that belong to the split by their hash."""
        (key,) = dataset.element_spec

        def chosen(value: np.ndarray | bytes) -> np.bool_:
            content = value if isinstance(value, bytes) else value.astype(np.int32).tobytes()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            held = int.from_bytes(digest, "little") / 2.0**64 < self._data.eval_fraction
            return np.bool_(held == (split == "eval"))

        def keep(example: dict[str, tf.Tensor]) -> tf.Tensor:
            answer = tf.numpy_function(chosen, [example[key]], tf.bool, stateful=False)
            return tf.ensure_shape(answer, [])

        return dataset.filter(keep)


class _Dataset:
    """A dataset of TensorFlow Datasets that has been prepared already."""

    def __init__(self, data: DataConfig):
        name = data.source.removeprefix("tfds:")
        try:
            # A string, not a Path: it may be the URL of a bucket.
            folder = data.tfds_data_dir and os.path.expanduser(data.tfds_data_dir)
            self.source = seqio.TfdsDataSource(tfds_name=name, tfds_data_dir=folder)
            self.splits = sorted(self.source.splits)
        except Exception as error:  # TFDS raises many kinds, some of them private
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"no dataset {name!r} (NAME:VERSION) in data.tfds_data_dir="
                f"{data.tfds_data_dir!r}: {reason}"
            ) from error

    def dataset(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        return self.source.get_dataset(split, shuffle=shuffle, seed=seed, shard_info=shard_info)

    def fingerprint(self, key: str) -> str | None:
        return None


class _Task:
    """A registered task up to its cache placeholder, or its output of `seqio_cache_tasks`."""

    def __init__(self, data: DataConfig):
        task = registered(data)
        if isinstance(task, seqio.Mixture):
            raise UserError(
                f"data.source={data.source!r} is a mixture; its tasks are read one by one"
            )
        self._task, self.splits = task, sorted(task.splits)
        self.source = task.source

    def dataset(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        task = self._task
        if task.cache_dir is None:
            dataset = self.source.get_dataset(
                split, shuffle=shuffle, seed=seed, shard_info=shard_info
            )
            return task.preprocess_precache(dataset, seed=seed or 0)
        with tf.io.gfile.GFile(seqio.get_cached_info_path(task.cache_dir, split)) as file:
            held = json.load(file)["features"]
        features = {name: one for name, one in task.output_features.items() if name in held}
        as_cached = task.replace(
            preprocessors=[seqio.CacheDatasetPlaceholder()], output_features=features
        )
        return as_cached.get_dataset(
            None,
            split,
            use_cached=True,
            shuffle=shuffle,
            seed=seed,
            shard_info=shard_info,
            try_in_mem_cache=False,
        )

    def fingerprint(self, key: str) -> str | None:
        feature = self._task.output_features.get(key)
        model = getattr(feature and feature.vocabulary, "sp_model", None)
        return None if model is None else hashlib.sha256(model).hexdigest()
