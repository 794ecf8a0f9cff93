"""Attention over an interval of keys per query on NVIDIA GPUs, without a T x S array.

The mathematics is that of `glm_jax.attention.dispatch`, in three kernels that Pallas lowers to
Triton; memory beyond inputs and outputs is one float per query and head. A block of keys that no
query of a block sees is neither loaded nor multiplied, one that all of them see needs no mask
(`ranges`), and the backward pass recomputes the scores (`backward`).

The tests interpret the kernels on CPU and lower them for an H100; on a GPU they also compare the
compiled kernels with the reference. jax 0.11 and 0.12 still lower to Triton and announce that a
later version will not (docs/decisions/008-gpu-attention.md).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from glm_jax.arrays import AbstractArray
from glm_jax.attention.call import Attended, Call
from glm_jax.attention.gpu.backward import key_gradient, query_gradient
from glm_jax.attention.gpu.device import compute_capability, refuses_device
from glm_jax.attention.gpu.forward import forward
from glm_jax.attention.gpu.ranges import block_ranges
from glm_jax.attention.gpu.tiles import Plan, Tiling
from glm_jax.attention.intervals import block_kinds
from glm_jax.attention.sharded import over_mesh

HEAD_DIMS = (32, 64, 128)
DTYPES = (jnp.bfloat16, jnp.float32)
AMPERE = 8.0


def refuses_gpu(call: Call) -> str | None:
    """Why the kernels cannot compute this call here, or None."""
    if (reason := refuses_device()) is not None:
        return reason
    # None where a program is compiled for a GPU that this machine does not have.
    capability = compute_capability()
    if capability is not None and capability < AMPERE:
        return f"needs compute capability {AMPERE} (Ampere); this GPU has {capability}"
    return refusal(call.q, call.k, call.dropout_rate)


def run_gpu(call: Call, *, interpret: bool = False) -> Attended:
    """The kernels on each device of the current mesh; returns what `dense` does."""
    return over_mesh(functools.partial(_run, interpret=interpret), call)


def _run(call: Call, *, interpret: bool) -> tuple[jax.Array, jax.Array]:
    bounds = call.attend_start, call.attend_end
    return interval_attention(
        call.q, call.k, call.v, *bounds, scale=call.scale, interpret=interpret
    )


def refusal(q: AbstractArray, k: AbstractArray, dropout_rate: float = 0.0) -> str | None:
    """Why the kernels cannot compute this call (shapes as in `interval_attention`), or None."""
    head_dim, dtypes = q.shape[-1], {np.dtype(x.dtype) for x in (q, k)}
    if head_dim not in HEAD_DIMS:
        return f"head_dim must be one of {list(HEAD_DIMS)}; got {head_dim}"
    if not dtypes <= {np.dtype(dtype) for dtype in DTYPES} or len(dtypes) > 1:
        names = ", ".join(sorted(dtype.name for dtype in dtypes))
        return f"queries and keys must both be bfloat16 or float32; got {names}"
    if dropout_rate > 0.0:
        return f"has no dropout on the probabilities; got rate {dropout_rate}"
    return None


def tilings(head_dim: int, dtype: jax.typing.DTypeLike) -> tuple[Tiling, Tiling, Tiling]:
    """Tilings of the kernels for the output, dq, and dk with dv: the largest that fit registers."""
    if np.dtype(dtype).itemsize > 2:
        small = Tiling(block_q=32, block_k=32, num_warps=4, num_stages=2)
        return small, small, small
    wide = 8 if head_dim > 64 else 4
    return (
        Tiling(block_q=128, block_k=64, num_warps=wide, num_stages=3),
        Tiling(block_q=64, block_k=64, num_warps=4, num_stages=2),
        Tiling(block_q=64, block_k=64, num_warps=wide, num_stages=2),
    )


def interval_attention(
    q: Float[jax.Array, "B T N H"],
    k: Float[jax.Array, "B S K H"],
    v: Float[jax.Array, "B S K H"],
    attend_start: Int[jax.Array, "B T"],
    attend_end: Int[jax.Array, "B T"],
    *,
    scale: float | None = None,
    interpret: bool = False,
) -> Attended:
    """Softmax attention of each query over the keys [attend_start, attend_end).

    T and S are padded to whole blocks, with queries that see no key and keys that no query sees. A
    policy of `jax.checkpoint` can save what the backward pass needs, by the names "attention_out"
    and "attention_lse".

    Args:
      q: [B, T, N, H] queries.
      k, v: [B, S, K, H]; N is a multiple of K, and query head n uses head n // (N / K).
      attend_start, attend_end: [B, T] int32, indices into S.
      scale: factor on the scores; None: 1 / sqrt(H).
      interpret: run on any platform, slowly.

    Returns:
      [B, T, N, H] in the dtype of v, 0 where the interval is empty; and the log of the sum of the
      exponentials of the scores, float32 [B, T, N], -1e30 there. Both may be differentiated.
    """
    length, head_dim, num_keys = q.shape[1], q.shape[-1], k.shape[1]
    plan = Plan(*tilings(head_dim, q.dtype), interpret=interpret)
    of_plan = (plan.forward, plan.query_gradient, plan.key_gradient)
    block_q, block_k = (max(getattr(t, name) for t in of_plan) for name in ("block_q", "block_k"))
    scale = head_dim**-0.5 if scale is None else scale
    q = _fill((q.astype(jnp.float32) * scale).astype(q.dtype), block_q)
    k, v = _fill(k, block_k), _fill(v, block_k)
    start = _fill(attend_start.astype(jnp.int32), block_q)
    end = _fill(jnp.minimum(attend_end.astype(jnp.int32), num_keys), block_q)
    out, lse = _attention(q, k, v, start, end, plan)
    return out[:, :length], jnp.moveaxis(lse[:, :, :length], 1, 2)


def _fill(x: jax.Array, multiple: int) -> jax.Array:
    """[B, T, ..] with zeros appended along T, to a multiple."""
    missing = -x.shape[1] % multiple
    return jnp.pad(x, [(0, missing if axis == 1 else 0) for axis in range(x.ndim)])


def _kinds(start: jax.Array, end: jax.Array, num_keys: int, tiling: Tiling) -> jax.Array:
    blocks = num_keys // tiling.block_k
    return block_kinds(start, end, tiling.block_q, tiling.block_k, blocks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(q, k, v, start, end, plan: Plan):
    """Padded arrays to out [B, T, N, H] and lse [B, N, T]."""
    ranges = block_ranges(_kinds(start, end, k.shape[1], plan.forward))
    return forward(q, k, v, start, end, ranges, plan)


def _attention_forward(q, k, v, start, end, plan: Plan):
    out, lse = _attention(q, k, v, start, end, plan)
    out, lse = checkpoint_name(out, "attention_out"), checkpoint_name(lse, "attention_lse")
    return (out, lse), (q, k, v, start, end, out, lse)


def _attention_backward(plan: Plan, residuals, gradients):
    q, k, v, start, end, out, lse = residuals
    d_out, d_lse = gradients
    products = out.astype(jnp.float32) * d_out.astype(jnp.float32)
    delta = jnp.moveaxis(jnp.sum(products, axis=-1), 1, 2) - d_lse
    arguments = (q, k, v, start, end, lse, d_out, delta)
    by_query = block_ranges(_kinds(start, end, k.shape[1], plan.query_gradient))
    dq = query_gradient(*arguments, by_query, plan)
    kinds = _kinds(start, end, k.shape[1], plan.key_gradient)
    dk, dv = key_gradient(*arguments, block_ranges(jnp.swapaxes(kinds, 1, 2)), plan)
    return dq, dk, dv, None, None


_attention.defvjp(_attention_forward, _attention_backward)
