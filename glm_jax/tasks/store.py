"""Building a token store: the pre-training task up to its cache placeholder, written to disk."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tqdm

from glm_jax.config import Config, DataConfig
from glm_jax.data.documents import SPLITS, Corpus
from glm_jax.data.store import StoreWriter
from glm_jax.data.store_path import store_key
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import load_tokenizer
from glm_jax.tasks.pretrain import pretrain_task
from glm_jax.tasks.quiet import without_chatter

# Documents handed from TensorFlow to numpy at once.
_BATCH = 512


def build_store(data: DataConfig, directory: Path, progress: bool | None = None) -> None:
    """Tokenises a corpus into a token store.

    Says in one line on standard error which lines were left out.

    Args:
      data: source, text field, tokenizer and eval fraction.
      directory: where the store will be; must not exist.
      progress: show a bar on standard error; None: if that is a terminal.

    Raises:
      ValueError: no files, no text in them, no tokenizer, or the directory cannot be written.
    """
    tokenizer = load_tokenizer(data.tokenizer)
    task = pretrain_task(Config(data=data))
    corpus = task.source.corpus
    _warn(corpus)
    with without_chatter():
        _leave_devices_to_jax()
    try:
        with StoreWriter(
            directory,
            vocab_size=tokenizer.vocab_size,
            special=tokenizer.special,
            sentence_ends=tokenizer.sentence_ends(),
            description=_describe(data, corpus, tokenizer.fingerprint),
        ) as writer:
            bar = tqdm.tqdm(
                total=len(corpus.places),
                desc="tokenising",
                unit=" documents",
                disable=None if progress is None else not progress,
                leave=False,
            )
            with bar:
                for split in SPLITS:
                    writer.add(split, _documents(task, split, bar))
    except OSError as error:
        raise UserError(
            f"cannot write the token store {str(directory)!r} ({error.strerror}); data.store or "
            "the environment variable GLM_JAX_CACHE puts it elsewhere"
        ) from error


def _documents(task: seqio.Task, split: str, bar: tqdm.tqdm) -> Iterator[Any]:
    """The ids of each document of a split, in the order of the corpus."""
    dataset = task.preprocess_precache(task.source.get_dataset(split, shuffle=False))
    for batch in dataset.ragged_batch(_BATCH).prefetch(2):
        tokens = batch["tokens"]
        yield from np.split(tokens.values.numpy(), tokens.row_splits.numpy()[1:-1])
        bar.update(int(tokens.nrows()))


def _describe(data: DataConfig, corpus: Corpus, fingerprint: str) -> dict:
    return {
        "source": data.source,
        "text_field": data.text_field,
        "eval_fraction": data.eval_fraction,
        "files": [{"name": str(path), "bytes": path.stat().st_size} for path in corpus.files],
        "skipped_lines": corpus.skipped.counts,
        "documents": {split: len(corpus.indices(split)) for split in SPLITS},
        "tokenizer": data.tokenizer,
        "tokenizer_fingerprint": fingerprint,
        "key": store_key(data),
    }


def _warn(corpus: Corpus) -> None:
    if corpus.skipped.counts:
        print(f"warning: {corpus.skipped.summary()}", file=sys.stderr)
    if corpus.single:
        print(
            "warning: the corpus is one document, which is used for training and for evaluation",
            file=sys.stderr,
        )


def _leave_devices_to_jax() -> None:
    """Keeps TensorFlow from taking a GPU's memory; its first operation looks for one."""
    # It refuses where the caller has used TensorFlow before, and so has chosen its devices.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    tf.constant(0)
