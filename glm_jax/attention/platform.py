"""The platform for which a program is traced, and whether its kernels can be partitioned.

As in Pallas, it is the platform of the current mesh, or else of the default backend. A program for
a TPU that this machine does not have uses the TPU kernel if it is traced under

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):      mesh of the TPU's devices
"""

import jax


def target_platform() -> str:
    """The platform that the program being traced will run on: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def refuses_many_devices() -> str | None:
    """Why a kernel cannot be partitioned over the devices of this process, or None."""
    if jax.sharding.get_abstract_mesh().empty and jax.device_count() > 1:
        return (
            f"there are {jax.device_count()} devices and no mesh is set that says how to split "
            "(jax.sharding.use_abstract_mesh)"
        )
    return None
