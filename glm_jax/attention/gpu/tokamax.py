"""Attention by tokamax, another kernel for NVIDIA GPUs, and why others are not used.

"tokamax" is OpenXLA's kernel for Hopper (Pallas, Mosaic GPU), if that package is installed; it
takes the first and the last key of each query. Its class is not public, so only versions whose
source was read are used. "auto" prefers our own kernel (`gpu.interval_attention`): a training step
on an H200 took 0.642 s with it and 0.651 s with tokamax (docs/performance.md), and it needs no
other package. Both have run on an H200, where ours was also compared with the reference.

cuDNN (`jax.nn.dot_product_attention(implementation="cudnn")`) takes lengths, causal and sliding
windows, offsets of packed segments, or a bias of all pairs. None but the bias can express GLM's
mask, which is bidirectional in part A and causal in part B, together with packing and padding. The
bias is a T x S array, which is what the intervals avoid.
"""

import functools
import importlib.metadata
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.attention.call import Attended, Call
from glm_jax.attention.gpu.device import compute_capability, refuses_device
from glm_jax.attention.intervals import HIDDEN
from glm_jax.attention.sharded import over_mesh

TOKAMAX_VERSIONS = ("0.0.17",)
HOPPER = 9.0


def refuses_tokamax(call: Call) -> str | None:
    """Why tokamax's kernel cannot compute this call here, or None."""
    if (reason := refuses_device()) is not None:
        return reason
    if compute_capability() != HOPPER:
        return f"needs compute capability {HOPPER} (Hopper); got {compute_capability()}"
    try:
        version = importlib.metadata.version("tokamax")
    except importlib.metadata.PackageNotFoundError:
        return "the package tokamax is not installed"
    if version not in TOKAMAX_VERSIONS:
        return f"knows tokamax {', '.join(TOKAMAX_VERSIONS)}; installed is {version}"
    if (trouble := _import_trouble()) is not None:
        return f"tokamax {version} is installed and cannot be imported: {trouble}"
    dtypes = [x.dtype for x in (call.q, call.k, call.v)]
    if set(dtypes) != {jnp.dtype(jnp.bfloat16)}:
        return f"queries, keys and values must be bfloat16; got {', '.join(map(str, dtypes))}"
    if call.mask_rows is not None:
        return f"has no dropout on the probabilities; got rate {call.dropout_rate}"
    return None


@functools.cache
def _import_trouble() -> str | None:
    """The error that importing tokamax or its dependencies raises, or None."""
    try:
        _import_tokamax()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _import_tokamax() -> tuple[Any, Any]:  # `Any`: the package is not installed here
    from tokamax._src.ops.attention.base import Mask
    from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention

    return Mask, PallasMosaicGpuFlashAttention


def run_tokamax(call: Call) -> Attended:
    """tokamax's kernel on each device of the current mesh; returns what `dense` does.

    The log-sum-exp is not differentiable, so a prefix cannot be merged in (`Backend.merges`). Under
    `jax.checkpoint` the kernel is run again whatever the policy.
    """
    return over_mesh(_run_tokamax, call)


def _run_tokamax(call: Call) -> tuple[jax.Array, jax.Array]:
    Mask, FlashAttention = _import_tokamax()
    # For an empty interval far to the right the kernel would loop over all keys before it.
    bounds = call.attend_start, call.attend_end
    start, end = (jnp.where(bounds[0] < bounds[1], x, 0)[:, None] for x in bounds)
    out, (largest, total) = FlashAttention()(
        call.q,
        call.k,
        call.v,
        logits_scale=call.scale,
        mask=Mask(k_start=start, k_end=end),
        return_residuals=True,
    )
    share = jnp.where(total > 0.0, total, 1.0)
    lse = jnp.where(total > 0.0, largest + jnp.log(share), HIDDEN)
    return out, jax.lax.stop_gradient(jnp.moveaxis(lse, 1, 2))
