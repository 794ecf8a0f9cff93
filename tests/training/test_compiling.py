from types import SimpleNamespace

import jax
import numpy as np
import pytest

from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.compiling import abstract_batch, compile_train_step, compiler_options
from glm_jax.training.feed import to_devices
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step


@pytest.mark.parametrize(
    ("kind", "memory"), [("TPU v5 lite", "65536"), ("TPU v5", "49152"), ("TPU v4", None)]
)
def test_tpus_get_whole_products_and_as_much_fast_memory_as_they_have(kind, memory):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(device_kind=kind)]))
    options = compiler_options(mesh)
    assert options["xla_jf_spmd_threshold_for_windowed_einsum_mib"] == "1000000"
    assert options.get("xla_tpu_scoped_vmem_limit_kib") == memory


def test_other_devices_get_no_options():
    for kind in ("cpu", "NVIDIA H100 80GB HBM3"):
        mesh = SimpleNamespace(devices=np.array([SimpleNamespace(device_kind=kind)]))
        assert compiler_options(mesh) == {}


def test_the_compiled_step_is_the_step(config, batch):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    like = abstract_batch(config, mesh)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == jax.tree.map(
        lambda x: (x.shape, x.dtype), batch
    )
    placed = to_devices(batch, batch_sharding(mesh))
    _, metrics = compile_train_step(config, mesh)(create_state(config, mesh), placed)
    _, expected = make_train_step(config, mesh)(create_state(config, mesh), placed)
    assert float(metrics["loss"]) == float(expected["loss"])
