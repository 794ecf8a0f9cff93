"""When and how the Pallas kernels compute attention.

Pallas is imported only where a kernel can run. Which platform a program is for is asked where
Pallas itself asks: the device of the mesh that is set, else the default backend. So a program that
is compiled for a TPU which this machine does not have gets the kernel where it is traced under

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):      mesh of the TPU's devices
"""

import functools

import jax

from glm_jax.attention.call import Call
from glm_jax.attention.sharded import over_mesh, split_for

# Below that many queries a row (decoding), a block of 128 would be mostly padding.
FEWEST_QUERIES = 64


def target_platform() -> str:
    """What the program that is being traced will run on: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


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


def refuses_many_devices() -> str | None:
    """Why a kernel cannot be split over the devices there are, or None."""
    if jax.sharding.get_abstract_mesh().empty and jax.device_count() > 1:
        return (
            f"there are {jax.device_count()} devices and no mesh is set that says how to split "
            "(jax.sharding.use_abstract_mesh)"
        )
    return None


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
