"""Compiles a run's training step for devices that may not be there.

A step that does not fit into their memory is a result, not an error.
"""

import dataclasses
import re
import time
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.planning.chips import chip_of
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.defaults import for_devices
from glm_jax.training.run.workdir import check_config
from glm_jax.training.state import abstract_state
from glm_jax.training.step import Options, compile_train_step, compiler_options
from glm_jax.training.train_state import TrainState

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# libtpu has two messages, for early and late in a compilation. Both count all memory: the
# "temporaries" of the first include state and batch.
_OUT_OF_MEMORY = (
    r"HBM, the total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds",
    r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm",
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step that was compiled, or that does not fit.

    Attributes:
      config: of the run, with the settings filled in that depend on the devices.
      mesh: of its devices.
      state: `abstract_state(config, mesh)`.
      compiled: the executable; None if it does not fit.
      peak_bytes: the most memory of a device that is in use at once.
      temporary_bytes: memory for temporaries, without state and batch; None if it does not fit.
      seconds: spent on tracing and compiling.
      options: of the compiler.
    """

    config: Config
    mesh: Mesh
    state: TrainState
    compiled: jax.stages.Compiled | None
    peak_bytes: int
    temporary_bytes: int | None
    seconds: float
    options: Options


def prepare(
    config: Config, devices: Sequence[jax.Device], sequences_per_chip: float | None = None
) -> tuple[Config, Mesh]:
    """The config as `train` would run it on these devices, checked as `train` does, and the mesh.

    Args:
      config: of the run.
      devices: all devices of the run.
      sequences_per_chip: rows per device and micro-batch, 0.5 if two devices share each row; sets
        `data.batch_size`. None: as the config says.

    Raises:
      UserError: the mesh does not fit the number of devices, or they cannot share the batch.
    """
    mesh = make_mesh(config.mesh, devices)
    if sequences_per_chip is not None:
        rows = round(sequences_per_chip * mesh.size) * config.train.accumulation_steps
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=rows))
    config = for_devices(config, mesh)
    hosts = len({device.process_index for device in devices})
    # No tokenizer is read; its vocabulary is assumed to be the model's.
    check_config(config, mesh, config.model.vocab_size, hosts)
    return config, mesh


def compile_program(config: Config, mesh: Mesh) -> Program:
    """Compiles the training step.

    Args:
      config, mesh: from `prepare`.

    Raises:
      UserError: the mesh cannot split a parameter.
    """
    state = abstract_state(config, mesh)
    options = planning_options(mesh)
    begin = time.monotonic()
    compiled, temporary = None, None
    try:
        compiled = compile_train_step(config, mesh, options)
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        peak = needed
    else:
        peak, temporary = memory_of(compiled, on_tpu=mesh.devices.flat[0].platform == "tpu")
    seconds = time.monotonic() - begin
    return Program(config, mesh, state, compiled, peak, temporary, seconds, options)


def planning_options(mesh: Mesh) -> Options:
    """The compiler options of a run, and those that make XLA estimate times of a GPU.

    Autotuning is off, since it needs the GPU itself. Matrix products are left to cuBLAS, whose
    times XLA knows, and not to Triton, which would need autotuning.
    """
    options, device = compiler_options(mesh), mesh.devices.flat[0]
    if device.platform in ("gpu", "cuda"):
        chip = chip_of(device)
        options |= {
            "xla_gpu_collect_cost_model_stats": chip is not None and chip.is_timed,
            "xla_gpu_autotune_level": 0,
            "xla_gpu_enable_triton_gemm": False,
        }
    return options


def memory_of(compiled: jax.stages.Compiled, on_tpu: bool) -> tuple[int, int]:
    """Bytes in use at the peak, and bytes of temporaries."""
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError("this backend does not say how much memory a program takes")
    # Only libtpu computes a true peak; other backends leave temporaries out of it.
    all_held = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    apart = all_held - found.alias_size_in_bytes
    return found.peak_memory_in_bytes if on_tpu else apart, found.temp_size_in_bytes


def program_text(compiled: jax.stages.Compiled) -> str | None:
    """The optimised HLO; None if jaxlib cannot read the program of a newer libtpu.

    This happens with jaxlib 0.10.2 and libtpu 0.0.52 for some programs of v5p and v6e
    ("async-update instruction should have 1 operands"). Memory figures are not affected.
    """
    try:
        return compiled.as_text() or ""
    except jax.errors.JaxRuntimeError:
        return None


def needed_bytes(message: str) -> int | None:
    """The bytes that a program would need, from the compiler's error; None for another error.

    "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm" -> 22011707392
    """
    for pattern in _OUT_OF_MEMORY:
        found = re.search(pattern, message)
        if found:
            return round(float(found[1]) * _UNITS[found[2]])
    return None
