"""Builds token stores of any source: of datasets and tasks by SeqIO, of files without it."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.config.data import DataConfig
from glm_jax.data import building
from glm_jax.data.documents import SPLITS
from glm_jax.data.mixture_store import INDEX
from glm_jax.data.store_path import is_scheme
from glm_jax.errors import UserError
from glm_jax.files import new_directory
from glm_jax.tasks.named import NamedSource, registered
from glm_jax.tasks.quiet import without_chatter
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.tokenizer import load_tokenizer

# Examples passed from TensorFlow to numpy at once.
_BATCH = 128


def build_store(data: DataConfig, directory: Path, progress: bool | None = None) -> None:
    """Tokenises a source into a token store.

    Prints one line on standard error that says what was left out.

    Args:
      data: source, text field, tokenizer and eval fraction; `mixture` is ignored.
      directory: of the store; must not exist, or be empty. For a SeqIO mixture it will hold the
        stores of its tasks (`glm_jax.data.mixture_store`).
      progress: show a bar on standard error; None: only if that is a terminal.

    Raises:
      ValueError: no such source, no text in it, no tokenizer, or the directory cannot be written.
    """
    if not is_scheme(data.source):
        building.build_store(data, directory, progress)
        return
    with without_chatter():
        _leave_devices_to_jax()
    if data.source.startswith("task:"):
        task = registered(data)
        if isinstance(task, seqio.Mixture):
            _build_mixture(task, data, directory, progress)
            return
    _build_named(data, directory, progress)


def _build_named(data: DataConfig, directory: Path, progress: bool | None) -> None:
    tokenizer = load_tokenizer(data.tokenizer)
    source = NamedSource(data)
    description = {"splits_of_source": source.origin.splits}
    with (
        building.writing(data, directory, tokenizer, description) as writer,
        building.bar(None, progress) as shown,
    ):
        try:
            for split in SPLITS:
                for ids, sizes in _documents(source, split, tokenizer):
                    writer.add_joined(split, ids, sizes)
                    shown.update(len(sizes))
        except tf.errors.DataLossError as error:
            raise UserError(
                f"data.source={data.source!r} holds a damaged record: {error.message}"
            ) from error
        writer.note(skipped_examples=dict(source.skipped))
        if not writer.num_documents("train"):
            raise UserError(f"empty corpus: data.source={data.source!r} gives no text for training")
    if source.skipped:
        left_out = ", ".join(f"{count} {why}" for why, count in source.skipped.items())
        print(f"warning: skipped examples of {data.source}: {left_out}", file=sys.stderr)


def _documents(
    source: NamedSource, split: str, tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Concatenated ids and sizes of the documents of a split, batch by batch, in order."""
    dataset = source.get_dataset(split, shuffle=False)
    if "tokens" in dataset.element_spec:
        for batch in dataset.ragged_batch(_BATCH).prefetch(2):
            yield batch["tokens"].values.numpy(), batch["tokens"].row_lengths().numpy()
        return
    batches = (
        [text.decode("utf-8") for text in batch["text"]]
        for batch in dataset.batch(_BATCH).prefetch(2).as_numpy_iterator()
    )
    yield from building.in_threads(lambda texts: building.encode_texts(tokenizer, texts), batches)


def _build_mixture(
    mixture: seqio.Mixture, data: DataConfig, directory: Path, progress: bool | None
) -> None:
    """Builds the stores of a mixture's tasks and writes their rates; all of it or nothing."""
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"the token store {str(directory)!r} exists already; remove it first")
    # Two runs that start together: the tasks' stores would come out equal, so the first is kept.
    with new_directory(directory, lambda path: (path / INDEX).is_file()) as whole:
        rates = {}
        for task in mixture.tasks:
            own = dataclasses.replace(data, source=f"task:{task.name}")
            _build_named(own, whole / task.name, progress)
            rates[task.name] = float(mixture.get_rate(task))
        content = {"source": data.source, "rates": rates}
        (whole / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _leave_devices_to_jax() -> None:
    """Keeps TensorFlow from allocating a GPU, which its first operation would do."""
    # It raises if the caller has used TensorFlow before, and so has chosen its devices.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    tf.constant(0)
