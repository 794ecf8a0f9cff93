"""`GlmFeatureConverter`: pads or packs the rows of a task to T slots, for any SeqIO trainer."""

from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.data.packing import pack_rows
from glm_jax.tasks.features import DTYPES, FIELDS

# Rows that are packed together; of these only the last packed row may stay short.
_BATCH = 64

_Spec = seqio.FeatureConverter.FeatureSpec


class GlmFeatureConverter(seqio.FeatureConverter):
    """Converts rows with the features of a `Batch` to rows of exactly T slots.

        dataset = seqio.get_dataset(
            "glm_pretrain", {"tokens": 512}, dataset_split="train", shuffle=True,
            feature_converter=GlmFeatureConverter(),
        )

    With `pack`, short rows, such as those of a task with one document per row, share a row (T = 8):

        tokens        [C a M E S b], [C S]     ->  [C a M E S b C S]
        attend_start  [0 0 0 0 0 0], [0 0]         [0 0 0 0 0 0 6 6]
        attend_end    [4 4 4 4 5 6], [1 2]         [4 4 4 4 5 6 7 8]
        loss_weights  [0 0 0 0 1 1], [0 1]         [0 0 0 0 1 1 0 1]

    Rows of "glm_pretrain" are full already and are not changed. SeqIO's own packer is not used
    (`glm_jax.data.packing` says why).
    """

    TASK_FEATURES = {name: _Spec(dtype=dtype) for name, dtype in DTYPES.items()}  # noqa: RUF012
    MODEL_FEATURES = TASK_FEATURES
    PACKING_FEATURE_DTYPES: Mapping[str, tf.dtypes.DType] = {}

    def __init__(self, pack: bool = False, pad_id: int = 0):
        """Args:
        pack: let short rows share a row; `seqio.Evaluator` only allows False.
        pad_id: padding of tokens and targets.
        """
        super().__init__(pack=pack)
        self._pad_id = pad_id

    def __call__(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        """Converts a dataset; T is read from "tokens" and holds for all features."""
        return super().__call__(ds, dict.fromkeys(FIELDS, task_feature_lengths["tokens"]))

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        length = task_feature_lengths["tokens"]
        ds = ds.map(lambda row: {name: row[name] for name in FIELDS})
        return self._packed(ds, length) if self.pack else self._padded(ds, length)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        return dict(task_feature_lengths)

    def _padded(self, ds: tf.data.Dataset, length: int) -> tf.data.Dataset:
        def pad(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            missing = [[0, length - tf.size(row["tokens"])]]
            padded = {}
            for name, values in row.items():
                fill = self._pad_id if name in ("tokens", "targets") else 0
                fill = tf.constant(fill, values.dtype)
                padded[name] = tf.ensure_shape(
                    tf.pad(values, missing, constant_values=fill), [length]
                )
            return padded

        return ds.map(pad, num_parallel_calls=2)

    def _packed(self, ds: tf.data.Dataset, length: int) -> tf.data.Dataset:
        def join(sizes: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
            fields = dict(zip(FIELDS, values, strict=True))
            packed = pack_rows(fields, sizes, length, self._pad_id)
            return [packed[name] for name in FIELDS]

        def pack(rows: dict[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor]:
            # With a stateful function an iterator could not be saved.
            packed = tf.numpy_function(
                join,
                [_sizes(rows["tokens"]), *(_joined(rows[name]) for name in FIELDS)],
                list(DTYPES.values()),
                stateful=False,
            )
            return {
                name: tf.ensure_shape(field, [None, length])
                for name, field in zip(FIELDS, packed, strict=True)
            }

        return ds.ragged_batch(_BATCH).map(pack, num_parallel_calls=2).unbatch()


def _joined(values: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
    return tf.reshape(values, [-1]) if isinstance(values, tf.Tensor) else values.values


def _sizes(values: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
    if isinstance(values, tf.Tensor):  # all rows have the same static length
        rows, length = tf.unstack(tf.shape(values, tf.int64))
        return tf.fill([rows], length)
    return values.row_lengths()
