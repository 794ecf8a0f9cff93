"""Blank infilling as a SeqIO preprocessor around the numpy core."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config.data import DataConfig
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.data.rows import RowBuilder
from glm_jax.data.store import Documents, TokenStore
from glm_jax.tasks.features import DTYPES, FIELDS
from glm_jax.tokenizers.protocol import Tokenizer

# Documents whose rows are built together; of these only the last row may not be full.
_BATCH = 64


def corrupt_documents(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int] | None = None,
    *,
    data: DataConfig,
    objective: ObjectiveConfig,
    tokenizer: Tokenizer,
) -> tf.data.Dataset:
    """Turns documents into corrupted rows of T slots, padded.

        {"tokens": [a b c]}  ->  {"tokens":          [C a M c E S b . . ..],
                                  "targets":         [C a M c E b P . . ..],
                                  "loss_weights":    [0 0 0 0 0 1 1 0 0 ..], ...}

    Rows are built from 64 documents at a time, by the code that builds rows from a token store.
    Draws depend on the dataset's seed, on the index in the stream (so epochs differ) and on the
    tokens (so hosts differ, although SeqIO gives them the same seeds).

    Args:
      dataset: examples with `tokens`, [length] int32.
      sequence_length: T under "tokens"; None: `data.sequence_length`.
      data: the default of T.
      objective: the objectives.
      tokenizer: gives special ids and sentence ends.
    """
    length = (sequence_length or {}).get("tokens") or data.sequence_length
    data = dataclasses.replace(data, sequence_length=length)
    store = TokenStore(tokenizer.vocab_size, tokenizer.special, tokenizer.sentence_ends(), {}, {})

    def build(tokens: np.ndarray, offsets: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
        documents = Documents("batch", tokens, offsets)
        high, low = (int(word) & 0xFFFFFFFF for word in seed)
        builder = RowBuilder(documents, store, data, objective, seed=high << 32 | low)
        digest = hashlib.blake2b(tokens.tobytes(), digest_size=4).digest()
        rows = np.arange(builder.num_rows)
        epochs = np.full(len(rows), int.from_bytes(digest, "little"))
        fields = builder.build(epochs, rows)[0].to_dict()
        return [fields[name] for name in FIELDS]

    @seqio.map_over_dataset(num_seeds=1)
    def corrupt(batch: dict[str, tf.RaggedTensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = batch["tokens"]
        # With a stateful function an iterator could not be saved.
        fields = tf.numpy_function(
            build,
            [tokens.values, tokens.row_splits, seed],
            list(DTYPES.values()),
            stateful=False,
        )
        return {
            name: tf.ensure_shape(field, [None, length])
            for name, field in zip(FIELDS, fields, strict=True)
        }

    documents = dataset.map(lambda example: {"tokens": example["tokens"]})
    documents = documents.filter(lambda example: tf.size(example["tokens"]) > 0)
    return corrupt(documents.ragged_batch(_BATCH)).unbatch()
