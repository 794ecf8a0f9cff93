"""Run by test_blank_filling.py in a process of its own: part A, lowered for four TPUs not there."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import functools

import jax
import numpy as np

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.generation.prefill import prefill
from glm_jax.models.params import abstract_params, bind
from glm_jax.planning.topologies import topology_devices
from glm_jax.sharding.mesh import make_mesh, with_mesh_of_params

# Of one layer attention would go: only keys and values of the last one are kept.
CONFIG = ModelConfig(
    vocab_size=512,
    num_layers=2,
    embed_dim=512,
    num_heads=4,
    max_positions=256,
).resolved(ComputeConfig(scan_layers=False, dtype="bfloat16"))


def kernels(lower):
    tokens, length = (jax.ShapeDtypeStruct(shape, np.int32) for shape in [(8, 128), (8,)])
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), topology_devices("v5e:2x2"))
    params = abstract_params(CONFIG, mesh)
    text = lower(params, tokens, length, config=CONFIG, size=256, width=128).as_text()
    return text.count("@tpu_custom_call")


if __name__ == "__main__":

    @functools.partial(jax.jit, static_argnames=("config", "size", "width"))
    def jitted(params, tokens, length, *, config, size, width):
        model = bind(config, params)
        return prefill(model, tokens, length, config=config, size=size, width=width)

    print(kernels(with_mesh_of_params(jitted.lower)), kernels(jitted.lower))
