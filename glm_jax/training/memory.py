"""Bytes that one device holds, by purpose, without compiling anything.

    fsdp 16, ChatGLM2-6B in float32:   parameters 1.5 GiB, optimizer 2.9 GiB, gradients 1.5 GiB

A step also needs memory for activations and for the gathered matrices of a layer. Only the compiler
knows how much; `glm_jax.planning.program` asks it.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.batch import BYTES_PER_SLOT
from glm_jax.config import Config
from glm_jax.models.trees import Params
from glm_jax.models.weights import is_matrix
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.sharding.rules import path_name
from glm_jax.training.train_state import TrainState

GIB = 1 << 30


def bytes_per_device(tree: object) -> int:
    """Bytes that one device holds of a tree of arrays, or of abstract arrays with shardings.

    Two values of int4 take one.
    """

    def size(leaf: jax.ShapeDtypeStruct) -> int:
        count = math.prod(leaf.sharding.shard_shape(leaf.shape))
        return -(-count // 2) if leaf.dtype == jnp.int4 else count * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def held_bytes(config: Config, mesh: Mesh, state: TrainState) -> dict[str, int]:
    """Bytes per device by kind: "parameters", "optimizer", "gradients", "batch".

    Args:
      config: of the run.
      mesh: its devices.
      state: of `abstract_state(config, mesh)`.
    """
    shape = (config.data.batch_size, config.data.sequence_length)
    return {
        "parameters": bytes_per_device(state.params),
        "optimizer": bytes_per_device(state.opt_state),
        "gradients": bytes_per_device(_gradients(config, state.trainable)),
        "batch": math.prod(batch_sharding(mesh).shard_shape(shape)) * BYTES_PER_SLOT,
    }


def _gradients(config: Config, params: Params) -> Params:
    """The gradients of a step: matrices in `compute.dtype`, sums over micro-batches in float32."""

    def gradient(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        dtype = config.compute.dtype if is_matrix(path_name(path)) else leaf.dtype
        if config.train.accumulation_steps > 1:
            dtype = jnp.float32
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    return jax.tree.map_with_path(gradient, params)


def describe_held(held: Mapping[str, int]) -> str:
    """`82.2 MiB per device without activations: parameters 20.6 MiB, ..`."""
    kinds = ", ".join(f"{name} {readable(size)}" for name, size in held.items())
    return f"{readable(sum(held.values()))} per device without activations: {kinds}"


def readable(num_bytes: float) -> str:
    """A size with its unit: `1536 -> 1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
