"""Which platform a traced program is for, and whether its kernels can be split."""

import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from glm_jax.attention.platform import refuses_many_devices, target_platform

TPU = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")


def tpu_mesh(size=1):
    return AbstractMesh((size,), ("data",), axis_types=(AxisType.Auto,), abstract_device=TPU)


def test_the_platform_is_that_of_the_mesh_that_is_set():
    assert target_platform() == jax.default_backend()
    with jax.sharding.use_abstract_mesh(tpu_mesh()):
        assert target_platform() == "tpu"


def test_kernels_on_several_devices_want_a_mesh(monkeypatch):
    assert refuses_many_devices() is None
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert "there are 4 devices and no mesh is set" in refuses_many_devices()
    with jax.sharding.use_abstract_mesh(tpu_mesh(4)):
        assert refuses_many_devices() is None
