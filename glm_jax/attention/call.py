"""One call of attention, as every backend gets it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.arrays import Array
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


# The output in the dtype of v, 0 for the empty interval, and the log-sum-exp of the scores.
Attended = tuple[Float[jax.Array, "B T N H"], Float[jax.Array, "B T N"]]
# How a backend computes a call.
Attend = Callable[[Call], Attended]


def make_call(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    attend_start: Int[Array, "B T"],
    attend_end: Int[Array, "B T"],
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
    return Call(
        q=jnp.asarray(q),
        k=jnp.asarray(k),
        v=jnp.asarray(v),
        attend_start=jnp.asarray(attend_start),
        attend_end=jnp.asarray(attend_end),
        scale=scale,
        dropout_rate=dropout_rate if rows else 0.0,
        mask_rows=rows,
    )
