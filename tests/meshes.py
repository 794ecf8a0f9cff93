"""Meshes of devices that need not be there, for tests of shardings and of kernels."""

from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from glm_jax.sharding.mesh import AXES

TPU = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
GPU = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")


def abstract_mesh(data=1, fsdp=1, tensor=1, sequence=1, *, device=None, types=(AxisType.Auto,) * 4):
    sizes = (data, fsdp, tensor, sequence)
    return AbstractMesh(sizes, AXES, axis_types=types, abstract_device=device)
