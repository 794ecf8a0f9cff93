"""When and how the Pallas kernels compute attention.

Pallas is imported only where a kernel can run.
"""

import functools

import jax

from glm_jax.attention.call import Call
from glm_jax.attention.platform import refuses_many_devices, target_platform
from glm_jax.attention.sharded import over_mesh, split_for

# Below that many queries a row (decoding), a block of 128 would be mostly padding.
FEWEST_QUERIES = 64


def refuses_tpu(call: Call) -> str | None:
    """Why `glm_jax.attention.tpu.interval_attention` cannot compute this call here, or None."""
    platform = target_platform()
    if platform != "tpu":
        return f"needs a TPU; this is for {platform}"
    if (reason := refuses_many_devices()) is not None:
        return reason
    from glm_jax.attention.tpu.interval_attention import refusal

    split = split_for(call.q.shape, call.k.shape[2])
    part = jax.ShapeDtypeStruct(split.local(call.q.shape), call.q.dtype)
    return refusal(part, call.k, call.dropout_rate)


def declines_few(call: Call) -> str | None:
    """Why "auto" looks further although a kernel could serve."""
    if call.q.shape[1] < FEWEST_QUERIES:
        return f"{call.q.shape[1]} queries a row are few; a block has 128"
    return None


def run_tpu(call: Call, *, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """The kernel, on each device of the mesh that is set; returns what `dense` does."""
    return over_mesh(functools.partial(_run, interpret=interpret), call)


def _run(call: Call, *, interpret: bool) -> tuple[jax.Array, jax.Array]:
    from glm_jax.attention.tpu.interval_attention import interval_attention

    return interval_attention(**call._asdict(), interpret=interpret)
