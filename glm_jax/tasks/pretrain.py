"""The SeqIO task of pre-training by blank infilling: documents -> ids -> corrupted rows."""

import dataclasses
import functools
import itertools
import re

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config import Config
from glm_jax.config.data import DataConfig
from glm_jax.data.store_path import is_scheme
from glm_jax.errors import UserError
from glm_jax.tasks.corrupt import corrupt_documents
from glm_jax.tasks.features import output_features
from glm_jax.tasks.metrics import objective_metrics
from glm_jax.tasks.named import NamedSource
from glm_jax.tasks.source import DocumentSource
from glm_jax.tokenizers.tokenizer import load_tokenizer, tokenizer_file

# Documents tokenised per call.
_BATCH = 256


class Vocabulary(seqio.SentencePieceVocabulary):
    """The SeqIO vocabulary of a tokenizer, with the same ids as `load_tokenizer(path).encode`.

    SeqIO's own class encodes tensors with another copy of sentencepiece than strings. The two
    differ where two segmentations of a word are equally likely: 深深|深 and 深|深深.
    """

    def __init__(self, path: str):
        """Makes the vocabulary of the tokenizer at `path`, as `data.tokenizer`.

        Raises:
          UserError: there is no tokenizer, or it is that of a chat model, of which SeqIO has no
            vocabulary. A token store takes those (`glm_jax.cache`).
        """
        kind = load_tokenizer(path).kind
        if kind not in ("sentencepiece", "glm2021"):
            raise UserError(
                f"a SeqIO task needs a sentencepiece model of this package as its data.tokenizer; "
                f"{path!r} is of the kind {kind!r} (glm_jax.train and glm_jax.cache take it)"
            )
        super().__init__(str(tokenizer_file(path)), extra_ids=0)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
        """Encodes a scalar to [length], or a vector [B] to a ragged [B, length], int32."""

        def encode(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = self.tokenizer.encode([text.decode("utf-8") for text in texts])
            lengths = np.array([len(row) for row in rows], np.int32)
            return np.fromiter(itertools.chain.from_iterable(rows), np.int32), lengths

        texts = tf.reshape(s, [-1])
        # With a stateful function an iterator could not be saved.
        flat, lengths = tf.numpy_function(encode, [texts], [tf.int32, tf.int32], stateful=False)
        flat, lengths = tf.ensure_shape(flat, [None]), tf.ensure_shape(lengths, [None])
        if s.shape.rank == 0:
            return flat
        return tf.RaggedTensor.from_row_lengths(flat, lengths)


def tokenize(dataset: tf.data.Dataset, vocabulary: seqio.Vocabulary) -> tf.data.Dataset:
    """Turns texts into ids.

    {"text": "the light"} -> {"tokens": [▁the, ▁light]}     int32, without [CLS] and eos
    """

    def encode(texts: dict[str, tf.Tensor]) -> dict[str, tf.RaggedTensor]:
        return {"tokens": vocabulary.encode_tf(texts["text"])}

    if "tokens" in dataset.element_spec:  # the source gives ids
        return dataset
    return dataset.batch(_BATCH).map(encode, num_parallel_calls=2).unbatch()


def pretrain_task(config: Config, name: str = "glm_pretrain") -> seqio.Task:
    """The task of a config, not registered: text, ids, SeqIO's offline cache, corrupted rows.

    Args:
      config: its sections `data` and `objective` are used.
      name: of the task.

    Raises:
      ValueError: there is no tokenizer.
    """
    ids = Vocabulary(config.data.tokenizer)
    return seqio.Task(
        name,
        source=source_of(config.data),
        preprocessors=[
            functools.partial(tokenize, vocabulary=ids),
            seqio.CacheDatasetPlaceholder(),
            functools.partial(
                corrupt_documents,
                data=config.data,
                objective=config.objective,
                tokenizer=load_tokenizer(config.data.tokenizer),
            ),
        ],
        output_features=output_features(ids),
        metric_fns=[objective_metrics],
    )


def source_of(data: DataConfig) -> DocumentSource | NamedSource:
    """The SeqIO source of `data.source`; `data.mixture` is ignored."""
    return NamedSource(data) if is_scheme(data.source) else DocumentSource(data)


def register_glm_pretrain(
    config: Config | None = None, name: str = "glm_pretrain"
) -> seqio.Task | seqio.Mixture:
    """Registers the task of a config in SeqIO, replacing one of the same name.

    A config with `data.mixture` gives a mixture NAME with the config's rates. It has one task per
    component, called NAME_COMPONENT ("-" and "." become "_").

    Args:
      config: its sections `data` and `objective` are used; None: the defaults (bundled corpus).
      name: the registered name.
    """
    config = config or Config()
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        if name in registry.names():
            registry.remove(name)
    if not config.data.components:
        task = pretrain_task(config, name)
        seqio.TaskRegistry.add_provider(name, task)
        return task
    rates = []
    for component in config.data.components:
        part = re.sub(r"[-.]", "_", f"{name}_{component.name}")
        data = dataclasses.replace(config.data, source=component.source, mixture=None, store=None)
        register_glm_pretrain(dataclasses.replace(config, data=data), part)
        rates.append((part, component.rate))
    return seqio.MixtureRegistry.add(name, rates)
