"""The summary that a run prints before its first step."""

import jax
from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.models.flops import (
    describe_groups,
    flops_per_token,
    parameter_groups,
    trained_parameters,
)
from glm_jax.training.distributed import share
from glm_jax.training.memory import (
    answers_at_once,
    describe_held,
    describe_rollouts,
    held_bytes,
    readable,
    rollout_bytes,
)
from glm_jax.training.state import abstract_state
from glm_jax.training.train_state import TrainState


def summary(config: Config, mesh: Mesh, rows_per_epoch: int, start: str) -> str:
    """Describes a run in a few lines.

    Args:
      config: of the run.
      mesh: its devices.
      rows_per_epoch: rows of the training split.
      start: a sentence on what it starts from.
    """
    state = abstract_state(config, mesh)
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    rows, length, steps = (
        config.data.batch_size,
        config.data.sequence_length,
        config.train.num_steps,
    )
    flops = flops_per_token(config, state.params, state.frozen)
    groups, trained = parameter_groups(state.params), trained_parameters(state.trainable)
    return "\n".join(
        [
            f"model       {describe_groups(groups, trained)}",
            f"memory      {describe_held(held_bytes(config, mesh, state))}",
            f"devices     {mesh.size} x {mesh.devices.flat[0].device_kind} ({axes}), "
            f"{share()[1]} host(s)",
            f"step        {rows} rows x {length} slots = {rows * length:,} tokens of "
            f"{flops:.3g} FLOPs",
            *rollout_lines(config, mesh, state),
            f"data        {rows_per_epoch:,} rows per epoch; {steps:,} steps are "
            f"{steps * rows / max(rows_per_epoch, 1):.1f} epochs",
            f"start       {start}",
        ]
    )


def rollout_lines(config: Config, mesh: Mesh, state: TrainState) -> list[str]:
    """What rollouts take beside the state, in a line; none in a run without."""
    if not config.has_rollouts:
        return []
    made, sizes = config.answers_of_a_cycle, rollout_bytes(config, mesh, state)
    return [
        f"rollouts    {made} answers to {made // config.rollouts.group_size} prompts, "
        f"{answers_at_once(config, made, mesh)} at once; per device {describe_rollouts(sizes)}"
    ]


def kept_line(step: jax.stages.Compiled) -> str:
    """The memory that `train.keep_freed_memory` keeps: the temporaries of a step."""
    memory = step.memory_analysis()
    size = readable(memory.temp_size_in_bytes) if memory is not None else "memory"
    return (
        f"kept        {size} of a step's temporaries, for the next step; "
        "train.keep_freed_memory=False gives it back"
    )
