"""The end of a run that cannot go on: an exit status, and a sentence that says what is saved."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.training.watch.recording import TrainingDiverged

DIVERGED_STATUS = 1
DISK_STATUS = 3


def failed(error: Exception, workdir: Path, finish: Callable[[], None] | None = None) -> int:
    """Says why a run ended and which checkpoint is the newest.

    Args:
      error: what ended it. One that is a bug is raised again.
      workdir: of the run.
      finish: waits for a save that has started; its own failure is ignored.

    Returns:
      The exit status.
    """
    status, why = _reason(error, workdir)
    if finish is not None:
        with contextlib.suppress(DiskTrouble):
            finish()
    steps = saved_steps(workdir / "checkpoints")
    kept = f"the newest checkpoint is that of step {steps[-1]}" if steps else "none is saved"
    print(f"error: {why}; {kept}", file=sys.stderr)
    return status


def _reason(error: Exception, workdir: Path) -> tuple[int, str]:
    """The exit status and the message of an error."""
    if isinstance(error, TrainingDiverged):
        return DIVERGED_STATUS, str(error)
    if isinstance(error, DiskTrouble):
        return DISK_STATUS, str(error)
    trouble = disk_trouble(error)
    if trouble is None:
        raise error
    where = str(getattr(error, "filename", None) or workdir)
    return DISK_STATUS, f"{where!r} cannot be used: {trouble}"
