"""Which platform a traced program is for, and whether its kernels can be split."""

import jax

from glm_jax.attention.platform import refuses_many_devices, target_platform
from tests.meshes import TPU, abstract_mesh


def test_the_platform_is_that_of_the_mesh_that_is_set():
    assert target_platform() == jax.default_backend()
    with jax.sharding.use_abstract_mesh(abstract_mesh(device=TPU)):
        assert target_platform() == "tpu"


def test_kernels_on_several_devices_want_a_mesh(monkeypatch):
    assert refuses_many_devices() is None
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert "there are 4 devices and no mesh is set" in refuses_many_devices()
    with jax.sharding.use_abstract_mesh(abstract_mesh(4, device=TPU)):
        assert refuses_many_devices() is None
