"""What is known of a step without compiling it: sizes, FLOPs, memory, and rates from a time."""

import os

import jax
from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.models.flops import (
    attention_density,
    flops_per_token,
    parameter_groups,
    trained_parameters,
)
from glm_jax.planning.apart import Report
from glm_jax.planning.chips import Gpu, chip_of
from glm_jax.planning.saving import checkpoint_facts
from glm_jax.training.memory import GIB, answers_at_once, held_bytes, rollout_bytes
from glm_jax.training.train_state import TrainState


def run_facts(config: Config, mesh: Mesh, state: TrainState) -> Report:
    """The part of a report that needs no compiling: mesh, sizes, parameters, FLOPs, state."""
    groups = parameter_groups(state.params)
    at_a_time = mesh.size * config.train.accumulation_steps
    return {
        "num_devices": mesh.size,
        "mesh": dict(mesh.shape),
        "remat": config.compute.remat,
        "batch_size": config.data.batch_size,
        "sequences_per_chip": config.data.batch_size / at_a_time,
        "sequence_length": config.data.sequence_length,
        "parameters": sum(groups.values()),
        "trained_parameters": trained_parameters(state.trainable),
        "parameters_by_group": groups,
        "flops_per_token": flops_per_token(config, state.params, state.frozen),
        "attention_density": attention_density(config.cost_objective),
        "bytes_per_device": held_bytes(config, mesh, state),
        **_rollouts(config, mesh, state),
        **checkpoint_facts(mesh, state),
    }


def _rollouts(config: Config, mesh: Mesh, state: TrainState) -> Report:
    if not config.has_rollouts:
        return {}
    return {
        "answers_at_once": answers_at_once(config, config.answers_of_a_cycle, mesh),
        "rollout_bytes": rollout_bytes(config, mesh, state),
    }


def memory_limit(device: jax.Device) -> float | None:
    """GiB that a program may use on a device; None if unknown, as on CPU."""
    chip = chip_of(device)
    if isinstance(chip, Gpu):
        return chip.hbm_gib * _gpu_share()
    if chip is not None:
        return chip.hbm_gib
    statistics = device.memory_stats()
    return statistics["bytes_limit"] / GIB if statistics and "bytes_limit" in statistics else None


def _gpu_share() -> float:
    """The share of a GPU's memory that jax allocates at its start."""
    return float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75))


def rates(slots: float, step_ms: float | None, ideal_ms: float | None) -> Report:
    """The rates that follow from the time of a step.

    Args:
      slots: per step and device.
      step_ms: time of a step; None: unknown, and so are all rates.
      ideal_ms: time of the step's FLOPs at the chip's peak.
    """
    rate = 1e3 * slots / step_ms if step_ms else None
    return {
        "model_flops_utilisation": ideal_ms / step_ms if step_ms and ideal_ms else None,
        "tokens_per_second_per_device": rate,
        "chip_hours_for_100b_tokens": 1e11 / rate / 3600 if rate else None,
    }
