"""Attention over an interval of keys per query on TPU, without a T x S array.

The mathematics is that of `glm_jax.attention.dispatch`; memory beyond inputs and outputs is one
float per query and head. A block of keys that no query of a block sees is neither loaded nor
multiplied (`intervals`), one that all of them see needs no mask (`tiles`), and the backward pass
recomputes the scores (`backward`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from glm_jax.arrays import AbstractArray
from glm_jax.attention.call import Attended, Call
from glm_jax.attention.dropout import MaskRows
from glm_jax.attention.intervals import LANES, MAX_BLOCKS, block_kinds, block_size, list_steps
from glm_jax.attention.platform import refuses_many_devices, target_platform
from glm_jax.attention.sharded import over_mesh, split_for
from glm_jax.attention.tpu.backward import key_gradient, query_gradient, score_shift
from glm_jax.attention.tpu.forward import forward
from glm_jax.attention.tpu.tiles import Plan

# With blocks of 512 a tile of scores is 1 MiB of float32, and the backward kernels hold four. A
# step has some 0.35 us of overhead and 0.7 us of work (v5e, forward). From LONG keys on, blocks of
# twice as many keys halve the steps, for a few per cent more masked work, if the 16 MiB of memory
# of a kernel hold them.
BLOCK_Q = 512
BLOCK_K = 512
LONG = 4096
LONG_BLOCK_K = 1024
LONG_ROW_BYTES = 512

MAX_HEAD_DIM = 256
# The share of the 1 MiB of scalar memory for the packed steps.
MAX_STEP_BYTES = 512 * 1024
DTYPES = (jnp.bfloat16, jnp.float32)
# With fewer queries per row (decoding), a block of 128 would be mostly padding.
FEWEST_QUERIES = 64


def refuses_tpu(call: Call) -> str | None:
    """Why the kernel cannot compute this call here, or None."""
    platform = target_platform()
    if platform != "tpu":
        return f"needs a TPU; this is for {platform}"
    if (reason := refuses_many_devices()) is not None:
        return reason
    split = split_for(call.q.shape, call.k.shape[2])
    shard = jax.ShapeDtypeStruct(split.local_shape(call.q.shape), call.q.dtype)
    return refusal(shard, call.k, call.dropout_rate)


def declines_few(call: Call) -> str | None:
    """Why "auto" goes on although a kernel could compute the call, or None."""
    if call.q.shape[1] < FEWEST_QUERIES:
        return f"{call.q.shape[1]} queries per row are few; a block has 128"
    return None


def run_tpu(call: Call, *, interpret: bool = False) -> Attended:
    """The kernel on each device of the current mesh; returns what `dense` does."""
    return over_mesh(functools.partial(_run, interpret=interpret), call)


def _run(call: Call, *, interpret: bool) -> tuple[jax.Array, jax.Array]:
    return interval_attention(**call._asdict(), interpret=interpret)


def refusal(q: AbstractArray, k: AbstractArray, dropout_rate: float = 0.0) -> str | None:
    """Why the kernel cannot compute this call (shapes as in `interval_attention`), or None."""
    head_dim, dtypes = q.shape[-1], {np.dtype(x.dtype) for x in (q, k)}
    if head_dim > MAX_HEAD_DIM:
        return f"head_dim must be at most {MAX_HEAD_DIM}; got {head_dim}"
    if not dtypes <= {np.dtype(dtype) for dtype in DTYPES} or len(dtypes) > 1:
        names = ", ".join(sorted(dtype.name for dtype in dtypes))
        return f"queries and keys must both be bfloat16 or float32; got {names}"
    if dropout_rate >= 1.0:
        return f"the dropout rate must be below 1; got {dropout_rate}"
    blocks = [-(-x.shape[1] // size) for x, size in zip((q, k), block_sizes(q, k), strict=True)]
    steps = q.shape[0] * blocks[0] * blocks[1]
    if max(blocks) > MAX_BLOCKS or 4 * steps > MAX_STEP_BYTES:
        return f"the list of {steps} steps does not fit scalar memory ({MAX_STEP_BYTES // 4} do)"
    return None


def block_sizes(q: AbstractArray, k: AbstractArray) -> tuple[int, int]:
    """(block_q, block_k) if the caller does not choose."""
    row_bytes = -(-k.shape[-1] // LANES) * LANES * np.dtype(k.dtype).itemsize
    wide = k.shape[1] >= LONG and row_bytes <= LONG_ROW_BYTES
    largest = LONG_BLOCK_K if wide else BLOCK_K
    return block_size(q.shape[1], BLOCK_Q), block_size(k.shape[1], largest)


def interval_attention(
    q: Float[jax.Array, "B T N H"],
    k: Float[jax.Array, "B S K H"],
    v: Float[jax.Array, "B S K H"],
    attend_start: Int[jax.Array, "B T"],
    attend_end: Int[jax.Array, "B T"],
    *,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    mask_rows: MaskRows | None = None,
    blocks: tuple[int, int] | None = None,
    interpret: bool = False,
) -> Attended:
    """Softmax attention of each query over the keys [attend_start, attend_end).

    T, S, and a head dimension whose heads do not fill 128 lanes side by side (64 does if N = K),
    are padded to multiples of 128, with queries that see no key and keys that no query sees. A
    policy of `jax.checkpoint` can save what the backward pass needs, by the names "attention_out"
    and "attention_lse".

    Args:
      q: [B, T, N, H] queries.
      k, v: [B, S, K, H]; N is a multiple of K, and query head n uses head n // (N / K).
      attend_start, attend_end: [B, T] int32, indices into S.
      scale: factor on the scores; None: 1 / sqrt(H).
      dropout_rate: share of the probabilities set to 0, below 1.
      mask_rows: their dropout mask (`glm_jax.attention.dropout`); None: no dropout.
      blocks: (block_q, block_k), multiples of 128; None: chosen by length.
      interpret: run on any platform, slowly.

    Returns:
      [B, T, N, H] in the dtype of v, 0 where the interval is empty; and the log of the sum of the
      exponentials of the scores, float32 [B, T, N], -1e30 there. Both may be differentiated.
    """
    batch, length, heads, head_dim = q.shape
    num_keys, kv_heads = k.shape[1:3]
    block_q, block_k = blocks or block_sizes(q, k)
    pack = _heads_a_block(heads, kv_heads, head_dim)
    plan = Plan(
        num_heads=heads,
        num_kv_heads=kv_heads,
        width=-(-pack * head_dim // LANES) * LANES,
        pack=pack,
        block_q=block_q,
        block_k=block_k,
        num_keys=num_keys,
        scale=head_dim**-0.5 if scale is None else scale,
        dropout_rate=0.0 if mask_rows is None else dropout_rate,
        interpret=interpret,
    )
    bounds = [_fill(x.astype(jnp.int32), block_q, 1) for x in (attend_start, attend_end)]
    bounds[1] = jnp.minimum(bounds[1], num_keys)
    if mask_rows is None:
        seeds = jnp.zeros((2, batch, heads), jnp.uint32)
        mask_rows = MaskRows(seeds, jnp.zeros(length, jnp.uint32))
    seeds = jax.lax.bitcast_convert_type(mask_rows.seeds, jnp.int32).reshape(-1)
    offsets = jax.lax.bitcast_convert_type(_fill(mask_rows.offsets, block_q, 0), jnp.int32)
    rows = (bounds[0][:, None], bounds[1][:, None], offsets[None, None])
    out, lse = _attention(
        _flat(q, block_q, plan), _flat(k, block_k, plan), _flat(v, block_k, plan), rows, seeds, plan
    )
    out = out.reshape(batch, -1, heads, plan.head_dim)[:, :length, :, :head_dim]
    return out, jnp.moveaxis(lse[:, :, 0, :length], 1, 2)


def _heads_a_block(num_heads: int, num_kv_heads: int, head_dim: int) -> int:
    """Heads that fill the lanes of a block together; 1 if they cannot.

    >>> [_heads_a_block(16, 16, 64), _heads_a_block(16, 2, 64), _heads_a_block(15, 15, 64)]
    [2, 1, 1]
    """
    pack = LANES // head_dim if LANES % head_dim == 0 else 1
    return pack if num_heads == num_kv_heads and num_heads % pack == 0 else 1


def _fill(x: jax.Array, multiple: int, axis: int) -> jax.Array:
    """x with zeros appended along `axis`, to a multiple."""
    missing = -x.shape[axis] % multiple
    widths = [(0, missing if index == axis else 0) for index in range(x.ndim)]
    return jnp.pad(x, widths) if missing else x


def _flat(x: jax.Array, block: int, plan: Plan) -> jax.Array:
    """[B, T, N, H] -> [B, T', N H'], padded to whole blocks."""
    x = _fill(_fill(x, plan.head_dim, 3), block, 1)
    return x.reshape(*x.shape[:2], -1)


def _kinds(q, k, rows, plan: Plan) -> jax.Array:
    start, end = rows[0][:, 0], rows[1][:, 0]
    return block_kinds(start, end, plan.block_q, plan.block_k, k.shape[1] // plan.block_k)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(q, k, v, rows, seeds, plan: Plan):
    """Flat and padded arrays to out [B, T, N H] and lse [B, N, 1, T]."""
    return forward(q, k, v, rows, seeds, list_steps(_kinds(q, k, rows, plan)), plan)


def _attention_forward(q, k, v, rows, seeds, plan: Plan):
    out, lse = _attention(q, k, v, rows, seeds, plan)
    out, lse = checkpoint_name(out, "attention_out"), checkpoint_name(lse, "attention_lse")
    return (out, lse), (q, k, v, rows, seeds, out, lse)


def _attention_backward(plan: Plan, residuals, gradients):
    q, k, v, rows, seeds, out, lse = residuals
    d_out, d_lse = gradients
    kinds = _kinds(q, k, rows, plan)
    delta = score_shift(out, d_out, d_lse, plan.num_heads)
    dq = query_gradient(q, k, v, lse, d_out, delta, rows, seeds, list_steps(kinds), plan)
    by_key = list_steps(jnp.swapaxes(kinds, 1, 2))
    dk, dv = key_gradient(q, k, v, lse, d_out, delta, rows, seeds, by_key, plan)
    return dq, dk, dv, None, None


_attention.defvjp(_attention_forward, _attention_backward)
