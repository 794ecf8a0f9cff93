"""A command that trains nothing, on one process or started alike on several.

    python -m glm_jax.evaluate --checkpoint gs://b/run --coordinator a:8476 --num_processes 2 ..

A model larger than one host is spread over the devices of all. All processes compute; the first
one prints and writes.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from glm_jax.cli.decoding import quantize_options
from glm_jax.config.training import MeshConfig
from glm_jax.training.joining import join_for, network_of
from glm_jax.training.run.interrupts import ending_at_once
from glm_jax.training.run.watching import end_with_parent, is_child, run_together, watch

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from glm_jax.adapters.quantising import Quantize

# What may differ from process to process.
_OWN = {"coordinator", "num_processes", "process_id", "join_timeout", "lost_after", "output"}


def run_alike(main: Callable[[], int | None], options: argparse.Namespace) -> int:
    """Runs a command here, or together with the processes that its options or a cluster ask for.

    Args:
      main: what the command does; must touch no device before it is called. Gives its status; None
        is 0.
      options: with those of `glm_jax.cli.add_process_arguments`. All others must be the same on
        all processes.

    Returns:
      The status to end with.

    Raises:
      UserError: options about processes that make no network; or, of a single process, main's own.
    """
    network = network_of(options)
    if network is None:
        return main() or 0
    if not is_child():
        return watch(network.process_id)
    end_with_parent()
    same = {f"--{name}": value for name, value in vars(options).items() if name not in _OWN}

    def together() -> int:
        _without_gloo_in_the_output()
        join_for(network, options, same)
        return main() or 0

    with ending_at_once():
        return run_together(together, options.lost_after)


def _without_gloo_in_the_output() -> None:
    """Sends what C++ writes to standard output to standard error, and Python's where it went.

    Between CPUs gloo computes collectives, and prints a line for each group of devices.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    own = sys.stdout
    sys.stdout = os.fdopen(kept, "w", 1, own.encoding, own.errors)


class LoadOptions(TypedDict):
    """What `glm_jax.load` takes by name."""

    mesh: "Mesh | None"
    adapter: Path | None
    quantize: "Quantize | None"


def load_options(options: argparse.Namespace) -> LoadOptions:
    """How a command's options ask for a model to be loaded. To be called once joined.

    Args:
      options: adapter, mesh, and those of `glm_jax.cli.add_quantize_arguments`.
    """
    from glm_jax.adapters.quantising import Quantize
    from glm_jax.sharding.mesh import make_mesh

    wanted, quantized = wanted_mesh(options.mesh), quantize_options(options)
    return {
        "mesh": None if wanted is None else make_mesh(wanted),
        "adapter": options.adapter,
        "quantize": None if quantized is None else Quantize(**quantized),
    }


def wanted_mesh(asked: MeshConfig | None) -> MeshConfig | None:
    """The mesh of a command's `--mesh`; None: the first device. To be called once joined."""
    import jax

    if asked is None and jax.process_count() > 1:
        return MeshConfig(data=1, fsdp=-1)
    return asked
