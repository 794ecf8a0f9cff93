"""What a run says of itself before its first step."""

import jax
from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.training.state import abstract_state, num_bytes


def summary(config: Config, mesh: Mesh, rows_per_epoch: int, start: str) -> str:
    """Describes a run in a few lines.

    Args:
      config: of the run.
      mesh: its devices.
      rows_per_epoch: rows of the training split.
      start: where it starts from, a sentence.
    """
    state = abstract_state(config, mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Gradients have the size of the parameters.
    held = num_bytes(state) + num_bytes(state.params)
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    rows, length, steps = (
        config.data.batch_size,
        config.data.sequence_length,
        config.train.num_steps,
    )
    return "\n".join(
        [
            f"model       {count:,} parameters, {_size(num_bytes(state.params))}; "
            f"{_size(held)} with optimizer and gradients",
            f"devices     {mesh.size} x {mesh.devices.flat[0].device_kind} ({axes}), "
            f"{jax.process_count()} host(s)",
            f"step        {rows} rows x {length} places = {rows * length:,} tokens",
            f"data        {rows_per_epoch:,} rows an epoch; {steps:,} steps are "
            f"{steps * rows / max(rows_per_epoch, 1):.1f} epochs",
            f"start       {start}",
        ]
    )


def _size(num: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num < 1024:
            return f"{num:.1f} {unit}"
        num /= 1024
    return f"{num:.1f} TiB"
