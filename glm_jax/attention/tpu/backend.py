"""When and how the Pallas kernels compute attention.

Pallas is imported only where a kernel can run.
"""

import functools

import jax

from glm_jax.attention.call import Attended, Call
from glm_jax.attention.platform import refuses_many_devices, target_platform
from glm_jax.attention.sharded import over_mesh, split_for

# With fewer queries per row (decoding), a block of 128 would be mostly padding.
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
    from glm_jax.attention.tpu.interval_attention import interval_attention

    return interval_attention(**call._asdict(), interpret=interpret)
