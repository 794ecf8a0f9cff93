"""Bytes that one device holds, by purpose, without compiling anything.

    fsdp 16, ChatGLM2-6B in float32:   parameters 1.5 GiB, optimizer 2.9 GiB, gradients 1.5 GiB

A step also needs memory for activations and for the gathered matrices of a layer. Only the compiler
knows how much; `glm_jax.planning.program` asks it.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from glm_jax.batch import BYTES_PER_SLOT
from glm_jax.config import Config
from glm_jax.generation.cache import bucket, cache_parts, empty_cache, power_of_two
from glm_jax.models.trees import Params
from glm_jax.models.weights import is_matrix
from glm_jax.sharding.mesh import batch_sharding, row_groups
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
    if config.train.accumulation_steps > 1:
        return _with_dtype(params, lambda name, leaf: jnp.float32)
    return _computed(config, params)


def _computed(config: Config, params: Params) -> Params:
    """Parameters as the computation takes them: matrices in `compute.dtype`."""
    dtype = config.compute.dtype
    return _with_dtype(params, lambda name, leaf: dtype if is_matrix(name) else leaf.dtype)


def _with_dtype(params: Params, dtype: Callable[[str, jax.ShapeDtypeStruct], DTypeLike]) -> Params:
    def changed(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        kind = dtype(path_name(path), leaf)
        return jax.ShapeDtypeStruct(leaf.shape, kind, sharding=leaf.sharding)

    return jax.tree.map_with_path(changed, params)


def cache_slots(config: Config) -> int:
    """Slots of a rollout's row in the caches: a prompt and an answer, rounded up."""
    return bucket(config.data.sequence_length + 1)


def answers_at_once(config: Config, rows: int, mesh: Mesh) -> int:
    """Answers that a rollout decodes at once: a multiple of the devices they are split over.

    Args:
      config: of a run with rollouts.
      rows: answers that are wanted.
      mesh: of the parameters.
    """
    asked, groups = min(config.rollouts.slots or rows, rows), row_groups(mesh)
    return -(-asked // groups) * groups


def rollout_bytes(config: Config, mesh: Mesh, state: TrainState) -> dict[str, int]:
    """Bytes per device beside the state: "caches", while answers are decoded, and "reference".

        rollouts.slots 64, group_size 8     64 answers at once, and 8 prompts that wait, prefilled

    Args:
      config: of a run with rollouts.
      mesh: its devices; rows of the caches are split over data and fsdp, heads over tensor.
      state: of `abstract_state(config, mesh)`.
    """
    number = answers_at_once(config, config.answers_of_a_cycle, mesh)
    waiting = power_of_two(max(1, number // config.rollouts.group_size))
    model, groups = config.resolved_model, row_groups(mesh)
    slots = cache_slots(config)
    leaves = jax.eval_shape(
        lambda: [
            leaf for cache in empty_cache(model, 1, slots) for leaf in (cache.keys, cache.values)
        ]
    )
    row = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    rows = -(-number // groups) + -(-waiting // groups)
    has_reference = config.policy.has_reference
    return {
        "caches": rows * row // cache_parts(model, mesh.shape["tensor"]),
        # As `glm_jax.training.rollouts.reference.Reference` keeps it.
        "reference": bytes_per_device(_computed(config, state.trainable)) * has_reference,
    }


def describe_rollouts(sizes: Mapping[str, int]) -> str:
    """`caches 80.0 KiB, reference 1.2 MiB`, of what there is in `rollout_bytes`."""
    return ", ".join(f"{name} {readable(size)}" for name, size in sizes.items() if size)


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
