"""Batches of the golden vectors of ChatGLM: published masks as intervals, labels as targets."""

import numpy as np

from glm_jax.batch import Batch


def batch_of(tokens, positions, start, end, labels=None, block_positions=None):
    """Row t predicts label t + 1; -100 is none."""
    tokens = np.asarray(tokens, np.int32)
    none = np.full((len(tokens), 1), -100)
    shifted = none + 0 * tokens if labels is None else np.hstack([labels[:, 1:], none])
    blocks = np.zeros_like(tokens) if block_positions is None else block_positions
    return Batch(
        tokens=tokens,
        targets=np.where(shifted == -100, 0, shifted).astype(np.int32),
        loss_weights=(shifted != -100).astype(np.float32),
        positions=np.asarray(positions, np.int32),
        block_positions=np.asarray(blocks, np.int32),
        attend_start=np.asarray(start, np.int32),
        attend_end=np.asarray(end, np.int32),
    )


def padded_batch(vectors):
    """Of a causal model, and which slots are real.

    Padding keys lie outside of every interval; padding queries see nothing.
    """
    real = vectors["attention_mask"] > 0
    first = np.argmax(real, axis=1)[:, None]
    end = np.arange(1, real.shape[1] + 1)
    return batch_of(
        vectors["input_ids"],
        vectors["position_ids"],
        np.where(real, first, 0),
        np.where(real, end, 0),
        vectors["labels"],
    ), real


def masked_batch(vectors):
    """Of ChatGLM-6B: its T x T masks as an interval of keys for each query; and real slots."""
    seen = ~vectors["attention_mask_blocked"][:, 0]
    length, anything = seen.shape[-1], seen.any(-1)
    start = np.where(anything, seen.argmax(-1), 0)
    end = np.where(anything, length - seen[..., ::-1].argmax(-1), 0)
    keys = np.arange(length)
    intervals = (start[..., None] <= keys) & (keys < end[..., None])
    np.testing.assert_array_equal(intervals, seen)
    positions, block_positions = np.moveaxis(vectors["position_ids"], 1, 0)
    tokens, labels = vectors["input_ids"], vectors["labels"]
    return batch_of(tokens, positions, start, end, labels, block_positions), vectors["valid"]
