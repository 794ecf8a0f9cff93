"""Attention over intervals in jnp, compiled by XLA: all pairs at once, or queries in chunks.

Both return the output [B, T, N, H] and the log-sum-exp of the scores, by which a prefix is merged
in. With a prefix length of 2, T = 8 and chunks of 4:

    dense                 chunked
    x x . . . . . .       x x . . . . . .      4 x 8 scores, freed after use
    x x . . . . . .       x x . . . . . .
    x x x . . . . .       x x x . . . . .
    x x x x . . . .       x x x x . . . .
    x x x x x . . .       -------------------
    x x x x x x . .       x x x x x . . .      4 x 8 scores
    x x x x x x x .       ..
    x x x x x x x x
"""

import functools

import jax
import jax.numpy as jnp

from glm_jax.attention.call import Attended, Call
from glm_jax.attention.dropout import MaskRows, keeps
from glm_jax.attention.intervals import FLOOR, HIDDEN
from glm_jax.attention.sharded import over_mesh

# Queries per chunk: at most so many, and fewer if their scores took more than 512 MiB on a device.
LARGEST_CHUNK = 512
CHUNK_SCORES = 1 << 27


def dense(call: Call) -> Attended:
    """The reference: scores of all pairs.

    Explicit transposes and two-dimensional products are 1.5 times faster on CPU than an einsum over
    five axes.

    Returns:
      [B, T, N, H] in the dtype of v, 0 for the empty interval, and the log of the sum of the
      exponentials of the scores, float32 [B, T, N], HIDDEN there.
    """
    q, k, v = call.q, call.k, call.v
    batch, length, num_heads, head_dim = q.shape
    size, num_kv_heads = k.shape[1:3]
    by_query = (batch, num_kv_heads, num_heads // num_kv_heads, length)
    flat = (batch, num_kv_heads, num_heads // num_kv_heads * length)
    # Queries of heads that share keys are concatenated: [B, K, (N / K) T, H] by [B, K, S, H].
    q = jnp.moveaxis(q * call.scale, 1, 2).reshape(*flat, head_dim)
    k, v = jnp.moveaxis(k, 1, 2), jnp.moveaxis(v, 1, 2)
    scores = jnp.matmul(q, jnp.swapaxes(k, 2, 3), preferred_element_type=jnp.float32)
    scores = scores.reshape(*by_query, size)
    keys = jnp.arange(size, dtype=call.attend_start.dtype)
    seen = (call.attend_start[..., None] <= keys) & (keys < call.attend_end[..., None])
    scores = jnp.where(seen[:, None, None], scores, HIDDEN)
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(scores, axis=-1, keepdims=True), FLOOR))
    weights = jnp.exp(scores - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = _drop(weights, call.dropout_rate, call.mask_rows).reshape(*flat, size)
    weights = weights.astype(v.dtype)
    summed = jnp.matmul(weights, v, preferred_element_type=jnp.float32)
    share = jnp.where(total == 0.0, 1.0, total)
    # Dividing after the product takes T x H divisions instead of T x S.
    y = (summed / share.reshape(*flat, 1)).reshape(batch, num_heads, length, head_dim)
    lse = jnp.where(total == 0.0, HIDDEN, largest + jnp.log(share))
    lse = lse.reshape(batch, num_heads, length)
    return jnp.moveaxis(y, 1, 2).astype(v.dtype), jnp.moveaxis(lse, 1, 2)


def chunked(call: Call, *, chunk: int | None = None) -> Attended:
    """As `dense`, `chunk` queries at a time (None: `chunk_size`).

    The backward pass recomputes the scores.
    """
    return over_mesh(functools.partial(_by_chunks, chunk=chunk), call)


def chunk_size(batch: int, num_heads: int, num_keys: int) -> int:
    """Queries per chunk for one device's shard of a call.

    >>> [chunk_size(1, 32, size) for size in (2048, 8192, 32768, 131072)]
    [512, 512, 128, 32]
    """
    return max(8, min(LARGEST_CHUNK, CHUNK_SCORES // (batch * num_heads * num_keys)))


def _by_chunks(call: Call, *, chunk: int | None) -> tuple[jax.Array, jax.Array]:
    q, rows = call.q, call.mask_rows
    batch, length = call.attend_start.shape
    chunk = chunk or chunk_size(batch, q.shape[2], call.k.shape[1])
    count = -(-length // chunk)
    size = -(-length // count)

    def cut(x: jax.Array, axis: int) -> jax.Array:
        """[.., T, ..] -> [count, .., size, ..]; the queries of the padding see no key."""
        widths = [(0, count * size - length if i == axis else 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(batch, count * size, *x.shape[3:])[:, :length]

    def run(parts: tuple) -> tuple[jax.Array, jax.Array]:
        q, start, end, offsets = parts
        part = call._replace(q=q, attend_start=start, attend_end=end)
        return dense(part._replace(mask_rows=rows and MaskRows(rows.seeds, offsets)))

    offsets = cut(rows.offsets, 0) if rows else None
    parts = (cut(q, 1), cut(call.attend_start, 1), cut(call.attend_end, 1), offsets)
    # In a loop XLA cannot merge the recomputed scores with the first ones, so CSE may stay on.
    y, lse = jax.lax.map(jax.checkpoint(run, prevent_cse=False), parts)
    return join(y), join(lse)


def _drop(weights: jax.Array, rate: float, rows: MaskRows | None) -> jax.Array:
    """Dropout on weights [B, K, N / K, T, S]."""
    if rows is None:
        return weights
    start, stride = rows.seeds.reshape(2, *weights.shape[:3], 1, 1)
    keys = jnp.arange(weights.shape[-1], dtype=jnp.uint32)
    keep = keeps(start + (rows.offsets[:, None] + keys) * stride, rate)
    return jnp.where(keep, weights / (1.0 - rate), 0.0)
