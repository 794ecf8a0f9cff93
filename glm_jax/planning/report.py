"""The report of `plan` on one set of devices, as a dict.

Values that only the compilers of known TPUs and GPUs give are None for other devices. Values that
come from a compiled program are None if it does not fit.
"""

import dataclasses
import importlib.metadata

import jax
from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.planning.apart import Attempts
from glm_jax.planning.chips import Chip, Tpu, chip_of
from glm_jax.planning.estimate import ASSUMPTIONS, expected_turns, step_time
from glm_jax.planning.facts import Report, memory_limit, rates, run_facts
from glm_jax.planning.hlo import hlo_cost
from glm_jax.planning.program import Program, compile_program, planning_options, program_text
from glm_jax.training.memory import GIB
from glm_jax.training.state import abstract_state


def report(program: Program, topology: str | None = None) -> Report:
    """The report of a compiled step, in plain values.

    Args:
      program: from `compile_program`.
      topology: name of the topology; None: the devices of this machine.
    """
    config, mesh = program.config, program.mesh
    device = mesh.devices.flat[0]
    chip, limit = chip_of(device), memory_limit(device)
    facts = run_facts(config, mesh, program.state)
    slots = config.data.batch_size * config.data.sequence_length / mesh.size
    return {
        "topology": topology,
        "extrapolated": False,
        "device_kind": device.device_kind,
        **facts,
        "bytes_per_device": {**facts["bytes_per_device"], "temporaries": program.temporary_bytes},
        "failed": None,
        "peak_hbm_gib": program.peak_bytes / GIB,
        "hbm_gib": limit,
        "fits": program.compiled is not None and (not limit or program.peak_bytes <= limit * GIB),
        "memory_ms": state_traffic_ms(facts["bytes_per_device"], chip) if chip else None,
        **_times(program, chip, facts["flops_per_token"] * slots, slots),
        "assumptions": ASSUMPTIONS if chip and chip.is_timed else None,
        "compile_seconds": program.seconds,
        "compiler_options": program.options,
        "versions": _versions(),
    }


def attempted(config: Config, mesh: Mesh, topology: str | None, attempts: Attempts) -> Report:
    """The report of a program: compiled now or known before, or of a failed compilation."""
    key = repr((topology, mesh.size, config))
    failed = failed_report(config, mesh, topology)

    def compile_it() -> Report:
        try:
            return report(compile_program(config, mesh), topology)
        except jax.errors.JaxRuntimeError as error:
            first = str(error).strip().splitlines()[0]
            return {**failed, "failed": f"the compiler failed: {first}"}

    return attempts.report(key, failed, compile_it)


def failed_report(config: Config, mesh: Mesh, topology: str | None) -> Report:
    """The report of a program that could not be compiled; "failed" is to be filled in.

    Raises:
      UserError: a parameter that the mesh cannot split.
    """
    device = mesh.devices.flat[0]
    chip = chip_of(device)
    facts = run_facts(config, mesh, abstract_state(config, mesh))
    slots = config.data.batch_size * config.data.sequence_length / mesh.size
    return {
        "topology": topology,
        "extrapolated": False,
        "device_kind": device.device_kind,
        **facts,
        "bytes_per_device": {**facts["bytes_per_device"], "temporaries": None},
        "failed": None,
        "peak_hbm_gib": None,
        "hbm_gib": memory_limit(device),
        "fits": None,
        "memory_ms": state_traffic_ms(facts["bytes_per_device"], chip) if chip else None,
        "ideal_ms": 1e3 * facts["flops_per_token"] * slots / chip.peak_flops if chip else None,
        **dict.fromkeys(_TIMES + _COSTS),
        "assumptions": None,
        "compile_seconds": None,
        "compiler_options": planning_options(mesh),
        "versions": _versions(),
    }


def state_traffic_ms(held: dict[str, int], chip: Chip) -> float:
    """Time to read and write parameters, moments and gradients once: a lower bound of a step."""
    state = held["parameters"] + held["optimizer"] + held["gradients"]
    return 1e3 * 2 * state / chip.hbm_bandwidth


def _times(program: Program, chip: Chip | None, flops: float, slots: float) -> Report:
    """The times of a step; None where chip or program is unknown."""
    ideal = 1e3 * flops / chip.peak_flops if chip else None
    if program.compiled is None or chip is None or not chip.is_timed:
        return {"ideal_ms": ideal, **dict.fromkeys(_TIMES + _COSTS)}
    text = program_text(program.compiled)
    if text is None:
        return {"ideal_ms": ideal, **dict.fromkeys(_TIMES + _COSTS)}
    devices = program.mesh.devices.ravel()
    axes = range(chip.dimensions if isinstance(chip, Tpu) else 0)
    sides = [1 + max(device.coords[axis] for device in devices) for axis in axes]
    turns = expected_turns(program.config, program.mesh)
    cost = hlo_cost(text, devices.size, chip.clock_hz, turns)
    time = step_time(cost, program.config, program.mesh, chip, sides)
    return {
        "ideal_ms": ideal,
        **{name: getattr(time, name) for name in _TIMES if name.endswith("_ms")},
        **rates(slots, time.step_ms, ideal),
        "collective_gb": sum(one.num_bytes for one in cost.collectives) / 1e9,
        "collectives": [dataclasses.asdict(one) for one in cost.collectives],
        "kernels": {kernel.name: kernel.count for kernel in cost.kernels},
        "kernels_not_timed": list(time.unknown_kernels),
        "loops": {
            "turns_known": len(cost.loops) - cost.unknown_loops,
            "turns_assumed": cost.unknown_loops,
            "assumed_turns": turns,
            "windowed": cost.windowed_loops,
        },
        "broken_estimates": cost.broken_estimates,
        "top": [
            {"name": name, "count": count, "ms": 1e3 * seconds} for seconds, count, name in cost.top
        ],
    }


_TIMES = (
    "compute_ms",
    "kernel_ms",
    "waited_ms",
    "overlapped_ms",
    "exposed_ms",
    "step_ms",
    "model_flops_utilisation",
    "tokens_per_second_per_device",
    "chip_hours_for_100b_tokens",
)
_COSTS = (
    "collective_gb",
    "collectives",
    "kernels",
    "kernels_not_timed",
    "loops",
    "broken_estimates",
    "top",
)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("glm_jax", "jax", "jaxlib", "libtpu", "jax-cuda13-plugin"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
