import dataclasses
from types import SimpleNamespace

import jax
import numpy as np

from glm_jax.config import ComputeConfig, MeshConfig, TrainConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.defaults import for_devices


def test_cpu_has_memory_and_takes_the_fewest_products(config):
    found = for_devices(config, make_mesh(MeshConfig(), jax.devices("cpu")[:1]))
    assert found.compute.scan_layers is False
    assert found.train.cross_entropy == "gradient_in_forward"
    assert found.train.loss_chunk == 256


def test_accelerators_scan_layers_and_compute_logits_in_chunks(config):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform="tpu")]))
    found = for_devices(config, mesh)
    assert found.compute.scan_layers is True
    assert (found.train.cross_entropy, found.train.loss_chunk) == ("chunked", 1024)


def test_what_is_given_stays(config):
    train = TrainConfig(cross_entropy="plain", loss_chunk=7)
    compute = ComputeConfig(scan_layers=True)
    config = dataclasses.replace(config, compute=compute, train=train)
    assert for_devices(config, make_mesh(MeshConfig(), jax.devices("cpu")[:1])) == config
