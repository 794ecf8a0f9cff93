"""One call of attention, as every backend gets it."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from glm_jax.attention.dropout import MaskRows, mask_rows


class Call(NamedTuple):
    """The arguments of `glm_jax.attention.dispatch.attention`, all defaults filled in.

    Attributes:
      q: [B, T, N, H] queries.
      k, v: [B, S, K, H] keys and values; N is a multiple of K.
      attend_start, attend_end: [B, T] int32, the interval of keys that each query sees.
      scale: factor on the scores.
      dropout_rate: share of the probabilities set to 0.
      mask_rows: which ones; None: no dropout.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    attend_start: jax.Array
    attend_end: jax.Array
    scale: float
    dropout_rate: float = 0.0
    mask_rows: MaskRows | None = None


# How a backend computes a call. It returns the output [B, T, N, H] in the dtype of v, 0 for the
# empty interval, and the log-sum-exp of the scores, float32 [B, T, N].
Attend = Callable[[Call], tuple[jax.Array, jax.Array]]


def make_call(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend_start: jax.Array,
    attend_end: jax.Array,
    *,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> Call:
    """A `Call`; scale None: 1 / sqrt(H); dropout_key None: no dropout."""
    rows = None
    if dropout_key is not None and dropout_rate > 0.0:
        rows = mask_rows(dropout_key, (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return Call(q, k, v, attend_start, attend_end, scale, dropout_rate if rows else 0.0, rows)
