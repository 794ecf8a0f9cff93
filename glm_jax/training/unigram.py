"""The baseline `eval/unigram_loss`: predicting each target by its frequency in training.

A model that has learned only the frequencies of its targets, ends of spans included, reaches this
loss. A lower loss means that the model has learned from context.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from glm_jax.batch import NUM_OBJECTIVES
from glm_jax.config import Config
from glm_jax.data.identity import Identity, fingerprints
from glm_jax.files import write_whole
from glm_jax.training.distributed import is_first
from glm_jax.training.feed import Stream

ENOUGH_TARGETS = 1_000_000


def count_targets(
    stream: Stream, vocab_size: int, num_rows: int
) -> Float64[np.ndarray, "objectives V"]:
    """Counts the targets of training rows.

    Args:
      stream: of training rows.
      vocab_size: V.
      num_rows: rows to read, in whole batches; reading ends earlier after `ENOUGH_TARGETS`.

    Returns:
      By value of `Batch.objective` and id, weighted by `Batch.loss_weights`.
    """
    counts = np.zeros((NUM_OBJECTIVES, vocab_size))
    rows = targets = 0
    while rows < num_rows and targets < ENOUGH_TARGETS:
        batch = next(stream)
        present = batch.loss_weights > 0
        index = batch.objective[present].astype(np.int64) * vocab_size + batch.targets[present]
        weights = batch.loss_weights[present]
        counts += np.bincount(index, weights, counts.size).reshape(counts.shape)
        rows += len(batch.targets)
        targets += int(present.sum())
    return counts


def target_counts(
    path: Path, open_stream: Callable[[], Stream], config: Config, data: Identity
) -> Float64[np.ndarray, "objectives V"]:
    """Counts the targets of at most an epoch of training rows, or reads the counts from `path`.

    Args:
      path: of an .npz file, which the first host writes. A file that is damaged or belongs to other
        data is replaced.
      open_stream: opens the whole training stream, from its first row.
      config: of the run.
      data: identity of the stream's data.

    Returns:
      As `count_targets`.
    """
    of = json.dumps(fingerprints(data), sort_keys=True)
    kept = _read(path, (NUM_OBJECTIVES, config.model.vocab_size), of)
    if kept is not None:
        return kept
    stream = open_stream()
    counts = count_targets(stream, config.model.vocab_size, stream.num_rows)
    stream.close()
    if is_first():
        content = io.BytesIO()
        np.savez_compressed(content, counts=counts, data=np.array(of))
        write_whole(path, content.getvalue())
    return counts


def _read(path: Path, shape: tuple[int, int], of: str) -> np.ndarray | None:
    """The counts in a file; None if it is missing, damaged or belongs to other data."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            counts, data = file["counts"], str(file["data"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    good = counts.shape == shape and counts.dtype == np.float64 and np.isfinite(counts).all()
    return counts if good and (counts >= 0).all() and data == of else None


def unigram_losses(counts: Float64[np.ndarray, "*rows V"]) -> Float32[np.ndarray, "*rows V"]:
    """-log of frequencies, with one added to every count so that no id has probability 0.

        unigram_losses([[2, 1, 0]]) -> -log([[3/6, 2/6, 1/6]])

    Returns:
      In nats.
    """
    smoothed = counts + 1.0
    return -np.log(smoothed / smoothed.sum(-1, keepdims=True)).astype(np.float32)
