"""Builds the token store of a corpus of files: threads read and tokenise, without TensorFlow.

    my/*.txt  ->  scan: locations of documents  ->  threads: text, ids  ->  StoreWriter

The ids equal those of the SeqIO task of the same files (`glm_jax.tasks`), at several times its
speed.
"""

import collections
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import tqdm

from glm_jax.config.data import DataConfig
from glm_jax.data.documents import SPLITS, Corpus, scan
from glm_jax.data.store import StoreWriter
from glm_jax.data.store_path import described_files, store_key
from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.tokenizer import load_tokenizer

# Documents that a thread reads and tokenises at once.
_BATCH = 128

# Shares of repeated documents from which on a warning is printed.
_WARN_HELD_OUT, _WARN_REPEATED = 0.01, 0.1

In = TypeVar("In")
Out = TypeVar("Out")


def build_store(data: DataConfig, directory: Path, progress: bool | None = None) -> None:
    """Tokenises a corpus of files into a token store.

    Prints one line on standard error that names the lines that were left out.

    Args:
      data: source, text field, tokenizer and eval fraction.
      directory: where the store will be; must not exist, or be empty.
      progress: show a bar on standard error; None: only if that is a terminal.

    Raises:
      ValueError: no files, no text in them, no tokenizer, or a directory that cannot be written.
    """
    tokenizer = load_tokenizer(data.tokenizer)
    corpus = scan(data)
    _warn(corpus)

    def encode(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return encode_texts(tokenizer, [corpus.read(int(index)) for index in indices])

    description = {
        "files": described_files(data),
        "skipped_lines": corpus.skipped.counts,
        "documents": {split: len(corpus.indices(split)) for split in SPLITS},
    }
    with (
        writing(data, directory, tokenizer, description) as writer,
        bar(len(corpus.locations), progress) as shown,
    ):
        for split in SPLITS:
            indices = corpus.indices(split)
            chunks = [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]
            for ids, sizes in in_threads(encode, chunks):
                writer.add_joined(split, ids, sizes)
                shown.update(len(sizes))


def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The concatenated ids of texts, and the number of ids of each.

    ["the light", "", "was"]  ->  [▁the ▁light ▁was], [2 0 1]
    """
    rows = tokenizer.encode_batch(texts)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(sizes.sum())), sizes


def in_threads(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` by one thread per core, in order; only a few results are held at a time."""
    threads = os.cpu_count() or 1
    waiting: collections.deque[Future[Out]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class writing(StoreWriter):
    """A `StoreWriter` for a config; it raises a UserError where the store cannot be written."""

    def __init__(
        self, data: DataConfig, directory: Path, tokenizer: Tokenizer, description: JsonObject
    ):
        """Opens the writer; adds to the description what decides the content of a store.

        Raises:
          ValueError: the directory cannot be written.
        """
        self._where = directory
        try:
            super().__init__(
                directory,
                vocab_size=tokenizer.vocab_size,
                special=tokenizer.special,
                sentence_ends=tokenizer.sentence_ends(),
                description={
                    "source": data.source,
                    "text_field": data.text_field,
                    "eval_fraction": data.eval_fraction,
                    "tokenizer": data.tokenizer,
                    "tokenizer_fingerprint": tokenizer.fingerprint,
                    "key": store_key(data),
                }
                | description,
            )
        except OSError as error:
            raise self._cannot(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except OSError as failure:
            self.discard()
            raise self._cannot(failure) from failure
        if kind is None:
            _warn_of_repeats(self.repeated())
        if isinstance(error, OSError):
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write the token store {str(self._where)!r} ({error.strerror}); data.store or "
            "the environment variable GLM_JAX_CACHE puts it elsewhere"
        )


def bar(total: int | None, progress: bool | None) -> tqdm.tqdm:
    """The progress bar of tokenising `total` documents; see `build_store` for `progress`."""
    return tqdm.tqdm(
        total=total,
        desc="tokenising",
        unit=" documents",
        disable=None if progress is None else not progress,
        leave=False,
    )


def _warn_of_repeats(shares: dict[str, float]) -> None:
    """Warns if many held-out documents are in the training split too, or many documents repeat."""
    if shares == {"train": 0.0, "eval": 0.0, "eval in train": 1.0}:
        return  # the corpus is one document; `_warn` has said so
    for split, share in shares.items():
        if split == "eval in train" and share >= _WARN_HELD_OUT:
            print(
                f"warning: {share:.1%} of the held-out documents are in the training split too, so "
                "the held-out loss is that of texts that were trained on",
                file=sys.stderr,
            )
        elif split == "train" and share >= _WARN_REPEATED:
            print(
                f"warning: {share:.1%} of the documents for training repeat an earlier one",
                file=sys.stderr,
            )


def _warn(corpus: Corpus) -> None:
    if corpus.skipped.counts:
        print(f"warning: {corpus.skipped.summary()}", file=sys.stderr)
    if corpus.single:
        print(
            "warning: the corpus is one document, which is used for training and for evaluation",
            file=sys.stderr,
        )
