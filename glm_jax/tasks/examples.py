"""Files of examples as a SeqIO task: conversations, sources and targets, clozes.

my/*.jsonl -> {"record": '{"text": "Never again.", "stars": "bad"}'} -> rows of one example each
"""

import json
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.examples.building import objects_of
from glm_jax.data.examples.example import row_of
from glm_jax.data.examples.makers import Maker, maker_of
from glm_jax.errors import UserError
from glm_jax.tasks.features import DTYPES, FIELDS, output_features
from glm_jax.tasks.metrics import objective_metrics
from glm_jax.tokenizers.tokenizer import load_tokenizer


def examples_task(config: Config, name: str = "glm_examples") -> seqio.Task:
    """The task of a config with examples, not registered; a row holds one example.

    Args:
      config: its sections `data` and `examples`, and what kind of model `model` is.
      name: of the task.

    Raises:
      UserError: `examples.format` is None, or there is no tokenizer. Errors of files are raised
        when a dataset is asked for.
    """
    if config.examples.format is None:
        raise UserError("a task of examples needs examples.format; it is None")
    tokenizer = load_tokenizer(config.data.tokenizer)
    maker = maker_of(config.examples, tokenizer, config.model.fills_blanks)

    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        found = [json.dumps(values) for _, values in objects_of(config, maker, split)]
        return tf.data.Dataset.from_tensor_slices({"record": found})

    def rows(
        dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        length = (sequence_length or {}).get("tokens") or config.data.sequence_length
        return as_rows(dataset, maker, length, tokenizer.special.pad)

    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(read, splits=SPLITS),
        preprocessors=[rows],
        output_features=output_features(seqio.PassThroughVocabulary(tokenizer.vocab_size)),
        metric_fns=[objective_metrics],
    )


def as_rows(dataset: tf.data.Dataset, maker: Maker, length: int, pad_id: int) -> tf.data.Dataset:
    """Turns objects, as JSON under "record", into rows; those with nothing to learn are left out.

    Args:
      dataset: of {"record": string}.
      maker: of examples.
      length: T.
      pad_id: fills a row.
    """

    def make(record: bytes) -> list[np.ndarray]:
        made = [row_of(one, length, pad_id) for one in maker.examples(json.loads(record))]
        made = [fields for fields in made if fields["loss_weights"].any()]
        return [
            np.array([fields[name] for fields in made], DTYPES[name].as_numpy_dtype).reshape(
                -1, length
            )
            for name in FIELDS
        ]

    def rows(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # With a stateful function an iterator could not be saved.
        found = tf.numpy_function(make, [example["record"]], list(DTYPES.values()), stateful=False)
        return {
            name: tf.ensure_shape(field, [None, length])
            for name, field in zip(FIELDS, found, strict=True)
        }

    return dataset.map(rows).unbatch()


def register_glm_examples(config: Config, name: str = "glm_examples") -> seqio.Task:
    """Registers the task of a config in SeqIO, replacing one of the same name."""
    task = examples_task(config, name)
    if name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add_provider(name, task)
    return task
