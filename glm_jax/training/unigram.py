"""The baseline of `eval/unigram_loss`: guessing each target by how often it is one in training.

A model that has learned nothing but the frequencies of its targets, the ends of spans included,
reaches this loss; what it is below is what it has learned from context.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.batch import NUM_OBJECTIVES
from glm_jax.config import Config
from glm_jax.data.identity import Identity, fingerprints
from glm_jax.files import write_whole
from glm_jax.training.distributed import is_first

ENOUGH_TARGETS = 1_000_000


def count_targets(stream: Any, vocab_size: int, num_rows: int) -> np.ndarray:
    """Counts the targets of training rows.

    Args:
      stream: iterator of numpy Batches.
      vocab_size: V.
      num_rows: rows to read, in whole batches, unless there are `ENOUGH_TARGETS` before.

    Returns:
      [5, V] float64: by value of `Batch.objective`, weighted as in the loss.
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
    path: Path, open_stream: Callable[[], Any], config: Config, data: Identity
) -> np.ndarray:
    """Counts an epoch of training rows at most, or reads what an earlier run left in `path`.

    Args:
      path: of an .npz file; the first host writes it. One that is damaged, or that counted other
        data, is made anew.
      open_stream: opens the whole training stream, from its first row.
      config: of the run.
      data: of the stream.

    Returns:
      [5, V], as `count_targets`.
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
    """The counts in a file; None where it is missing, damaged or of other data."""
    try:
        with np.load(path) as file:
            counts, data = file["counts"], str(file["data"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    good = counts.shape == shape and counts.dtype == np.float64 and np.isfinite(counts).all()
    return counts if good and (counts >= 0).all() and data == of else None


def unigram_losses(counts: np.ndarray) -> np.ndarray:
    """-log frequency with one added to every count, so that no id is impossible.

        unigram_losses([[2, 1, 0]]) -> -log([[3/6, 2/6, 1/6]])

    Args:
      counts: [..., V].

    Returns:
      [..., V] float32, in nats.
    """
    smoothed = counts + 1.0
    return -np.log(smoothed / smoothed.sum(-1, keepdims=True)).astype(np.float32)
