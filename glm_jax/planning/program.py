"""A run's training step, compiled for devices that may not be there.

That it does not fit into their memory is a result, not an error.
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
from glm_jax.training.compiling import Options, compile_train_step, compiler_options
from glm_jax.training.defaults import for_devices
from glm_jax.training.run.workdir import check_config
from glm_jax.training.state import TrainState, abstract_state

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# libtpu says it in one of two ways, early or late in a compilation. The first, too, counts
# everything: state and batch are among its "temporaries".
_OUT_OF_MEMORY = (
    r"HBM, the total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds",
    r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm",
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step, compiled or refused.

    Attributes:
      config: of the run, with all that the devices decide filled in.
      mesh: its devices.
      state: `abstract_state(config, mesh)`.
      compiled: None where it does not fit.
      peak_bytes: most memory of a device in use at once.
      temporary_bytes: what of it is neither state nor batch; None where it does not fit.
      seconds: taken by tracing and compiling.
      options: given to the compiler.
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
    """The config as `train` would run it on those devices, checked as `train` does, and the mesh.

    Args:
      config: of the run.
      devices: all of them.
      sequences_per_chip: rows over devices that are taken at a time, 0.5 where two devices share
        each row; replaces `data.batch_size`. None: as the config says.

    Raises:
      UserError: a mesh that does not make up the devices, a batch that they cannot share.
    """
    mesh = make_mesh(config.mesh, devices)
    if sequences_per_chip is not None:
        rows = round(sequences_per_chip * mesh.size) * config.train.accumulation_steps
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=rows))
    config = for_devices(config, mesh)
    hosts = len({device.process_index for device in devices})
    # No tokenizer is read; its vocabulary is taken to be the model's.
    check_config(config, mesh, config.model.vocab_size, hosts)
    return config, mesh


def compile_program(config: Config, mesh: Mesh) -> Program:
    """Compiles the training step.

    Args:
      config, mesh: from `prepare`.

    Raises:
      UserError: a parameter that the mesh cannot split.
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
        peak, temporary = _memory_of(compiled, on_tpu=mesh.devices.flat[0].platform == "tpu")
    seconds = time.monotonic() - begin
    return Program(config, mesh, state, compiled, peak, temporary, seconds, options)


def planning_options(mesh: Mesh) -> Options:
    """Options of a run's compilation, and those without which XLA says nothing about a GPU's time.

    Nothing is tried out on a GPU, which need not be there; and matrix products are cuBLAS's, whose
    times XLA knows, not Triton's, of which it would have to try many.
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


def _memory_of(compiled: jax.stages.Compiled, on_tpu: bool) -> tuple[int, int]:
    """Bytes at the peak, and those of temporaries."""
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError("this backend does not say how much memory a program takes")
    # Only libtpu knows which buffers are there at once; others leave temporaries out of the peak.
    all_held = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    apart = all_held - found.alias_size_in_bytes
    return found.peak_memory_in_bytes if on_tpu else apart, found.temp_size_in_bytes


def program_text(compiled: jax.stages.Compiled) -> str | None:
    """The optimised HLO; None where jaxlib cannot read what a newer libtpu wrote.

    jaxlib 0.10.2 and libtpu 0.0.52 are such a pair for some programs of v5p and v6e ("async-update
    instruction should have 1 operands"). Memory is known all the same.
    """
    try:
        return compiled.as_text() or ""
    except jax.errors.JaxRuntimeError:
        return None


def needed_bytes(message: str) -> int | None:
    """Bytes that a program would need, from the compiler's error; None: it is another error.

    "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm" -> 22011707392
    """
    for pattern in _OUT_OF_MEMORY:
        found = re.search(pattern, message)
        if found:
            return round(float(found[1]) * _UNITS[found[2]])
    return None
