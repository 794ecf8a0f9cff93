"""Compiles a training step: for the devices at hand, or for those of a plan."""

import jax
from jax.sharding import Mesh

from glm_jax.batch import DTYPES, Batch
from glm_jax.config import Config
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.training.defaults import for_devices
from glm_jax.training.state import abstract_state
from glm_jax.training.step import make_train_step

# VMEM that a fusion may use, in KiB, by device kind: half of a core's VMEM or more. The default of
# 16 MiB cuts large products into tiles too small to keep the matrix units busy.
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
    """XLA's options for the devices of a mesh; empty unless they are TPUs.

    On TPU, products with all-gathered weights are not split into steps that overlap with the
    all-gather (windowed einsum): at these sizes that takes twice as long (docs/performance.md).
    """
    kind = mesh.devices.flat[0].device_kind
    if not kind.startswith("TPU"):
        return {}
    options: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    if kind in _SCOPED_VMEM:
        options["xla_tpu_scoped_vmem_limit_kib"] = str(_SCOPED_VMEM[kind])
    return options


def abstract_batch(config: Config, mesh: Mesh) -> Batch:
    """The global Batch of a config as `jax.ShapeDtypeStruct`s with shardings."""
    shape = (config.data.batch_size, config.data.sequence_length)

    sharding = batch_sharding(mesh)
    fields = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, dtype in DTYPES.items()
    }
    return Batch(**fields)


def compile_train_step(
    config: Config, mesh: Mesh, options: Options | None = None
) -> jax.stages.Compiled:
    """Compiles `make_train_step`; runs nothing and allocates no arrays.

    Args:
      config: of the run.
      mesh: of real devices, or of those of a topology.
      options: of XLA; None: `compiler_options(mesh)`.
    """
    config = for_devices(config, mesh)
    lowered = make_train_step(config, mesh).lower(
        abstract_state(config, mesh), abstract_batch(config, mesh)
    )
    options = compiler_options(mesh) if options is None else options
    # XLA takes whole numbers too, which jax's annotation leaves out.
    return lowered.compile(compiler_options=options)  # type: ignore[arg-type]
