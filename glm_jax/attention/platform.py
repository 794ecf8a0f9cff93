"""What the program that is being traced is for, and whether its kernels can be split.

Which platform that is is asked where Pallas itself asks: the device of the mesh that is set, else
the default backend. So a program that is compiled for a TPU which this machine does not have gets
the TPU's kernel where it is traced under

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):      mesh of the TPU's devices
"""

import jax


def target_platform() -> str:
    """What the program that is being traced will run on: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def refuses_many_devices() -> str | None:
    """Why a kernel cannot be split over the devices there are, or None."""
    if jax.sharding.get_abstract_mesh().empty and jax.device_count() > 1:
        return (
            f"there are {jax.device_count()} devices and no mesh is set that says how to split "
            "(jax.sharding.use_abstract_mesh)"
        )
    return None
