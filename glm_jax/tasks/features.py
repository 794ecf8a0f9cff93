"""The fields of `Batch` as SeqIO's output features."""

import seqio
import tensorflow as tf

from glm_jax import batch

FIELDS = tuple(batch.DTYPES)

DTYPES = {name: tf.as_dtype(dtype) for name, dtype in batch.DTYPES.items()}


def output_features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
    """The SeqIO output features: the fields of `Batch`, each of length T."""
    features: dict[str, seqio.Feature] = {}
    for name, dtype in DTYPES.items():
        if name in ("tokens", "targets"):
            features[name] = seqio.Feature(vocabulary, add_eos=False)
        else:
            features[name] = seqio.ContinuousFeature(dtype=dtype)
    return features
