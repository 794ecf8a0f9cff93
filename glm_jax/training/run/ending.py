"""The end of a run that cannot go on: an exit status, and a sentence that says what is saved."""

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.training import failures
from glm_jax.training.watch.recording import TrainingDiverged

DIVERGED_STATUS = 1
DISK_STATUS = 3
_PATIENCE = 20.0  # seconds for a save of several processes


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
        _briefly(finish)
    try:
        steps = saved_steps(workdir / "checkpoints")
        kept = f"the newest checkpoint is that of step {steps[-1]}" if steps else "none is saved"
    except (DiskTrouble, OSError):  # a bucket that does not answer
        kept = "checkpoints that are saved stay"
    print(f"error: {why}; {kept}", file=sys.stderr, flush=True)
    failures.tell(status, f"{why}; {kept}")
    return status


def _briefly(finish: Callable[[], None]) -> None:
    """Waits for a save; not for ever, since the other processes may never come to its end."""

    def ignoring() -> None:
        with contextlib.suppress(DiskTrouble):
            finish()

    if not failures.listening():
        ignoring()
        return
    thread = threading.Thread(target=ignoring, name="last save", daemon=True)
    thread.start()
    thread.join(_PATIENCE)


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
