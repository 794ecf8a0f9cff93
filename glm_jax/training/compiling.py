"""A training step as a compiled program: for the devices at hand, or for those of a plan."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.training.defaults import for_devices
from glm_jax.training.state import abstract_state
from glm_jax.training.step import make_train_step

# VMEM that a fusion may use, KiB, by device kind: half of what a core has and more. The default, 16
# MiB, cuts large products into tiles too small to keep the matrix units busy.
_SCOPED_VMEM = {
    "TPU v5 lite": 65536,
    "TPU v5e": 65536,
    "TPU v5": 49152,
    "TPU v5p": 49152,
    "TPU v6 lite": 65536,
    "TPU v6e": 65536,
}

Options = dict[str, str | bool | int]


def compiler_options(mesh: Mesh) -> Options:
    """Options of XLA for a mesh's devices, empty where there are none to give.

    On TPU products with gathered weights stay whole: cut into steps that overlap with the gathering
    (windowed einsum) they take twice as long at these sizes (docs/performance.md).
    """
    kind = mesh.devices.flat[0].device_kind
    if not kind.startswith("TPU"):
        return {}
    options: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    if kind in _SCOPED_VMEM:
        options["xla_tpu_scoped_vmem_limit_kib"] = str(_SCOPED_VMEM[kind])
    return options


def abstract_batch(config: Config, mesh: Mesh) -> Batch:
    """Shapes, dtypes and sharding of the global Batch, without the arrays."""
    shape = (config.data.batch_size, config.data.sequence_length)

    def field(name: str) -> jax.ShapeDtypeStruct:
        dtype = jnp.float32 if name == "loss_weights" else jnp.int32
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    return Batch(**{f.name: field(f.name) for f in dataclasses.fields(Batch)})


def compile_train_step(
    config: Config, mesh: Mesh, options: Options | None = None
) -> jax.stages.Compiled:
    """`make_train_step`, compiled: nothing runs, nothing is held.

    Args:
      config: of the run.
      mesh: its devices, there or not.
      options: of XLA; None: `compiler_options(mesh)`.
    """
    config = for_devices(config, mesh)
    lowered = make_train_step(config, mesh).lower(
        abstract_state(config, mesh), abstract_batch(config, mesh)
    )
    options = compiler_options(mesh) if options is None else options
    return lowered.compile(compiler_options=options)
