"""Which checkpoints are kept: the newest, and the best by a metric. The others are removed.

keep_checkpoints=2, keep_best=1, best_metric="eval/loss"

step        100   200   300   400   500
eval/loss   3.9   3.2   3.4    -    3.5
kept               x           x     x
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path

from glm_jax.checkpoints.checksums import MANIFEST, is_complete, read_manifest
from glm_jax.config.training import TrainConfig
from glm_jax.errors import UserError
from glm_jax.files import remove_tree, there
from glm_jax.remote import is_remote

# Names of what is not a step: saves that were killed, and steps whose removal was.
_LEFT_OVERS = ("*.orbax-checkpoint-tmp*", "*.removed")


def saved_steps(directory: Path) -> list[int]:
    """Complete steps in a directory of checkpoints, ascending."""
    return [step for step in _numbers(directory) if is_complete(directory / str(step))]


def unfinished_steps(directory: Path) -> list[int]:
    """Steps whose manifest was not written before their process ended, ascending."""
    return [step for step in _numbers(directory) if not is_complete(directory / str(step))]


def steps_to_keep(
    metrics: Mapping[int, Mapping[str, float]],
    newest: int,
    best: int,
    metric: str,
    is_highest: bool = False,
) -> set[int]:
    """Chooses the steps to keep; the module's docstring has an example.

    Args:
      metrics: of each step. A step without the metric, or with one that is not finite, is never
        among the best.
      newest, best: how many of the newest and of the best are kept.
      metric: name of the metric; of equal steps the newer one is better.
      is_highest: whether higher is better; False: lower is.
    """
    measured = [step for step in metrics if math.isfinite(metrics[step].get(metric, math.nan))]
    sign = -1 if is_highest else 1
    ranked = sorted(measured, key=lambda step: (sign * metrics[step][metric], -step))
    return {*sorted(metrics)[-newest:], *ranked[:best]}


def remove_others(directory: Path, settings: TrainConfig) -> None:
    """Removes the steps that are not kept, and the unfinished ones of earlier processes.

    A kill never leaves an incomplete step that counts as one.
    """
    manifests = {step: read_manifest(directory / str(step)) for step in saved_steps(directory)}
    metrics = {step: found["metrics"] if found else {} for step, found in manifests.items()}
    keep = steps_to_keep(
        metrics,
        settings.keep_checkpoints,
        settings.keep_best,
        settings.best_metric,
        settings.best_is_highest,
    )
    for step in set(metrics) - keep:
        _remove(directory / str(step))
    for left in directory.glob("unfinished-*"):
        remove_tree(left)


def _remove(step: Path) -> None:
    """Removes a step, which first loses its name, or what makes it complete."""
    if is_remote(step):  # a rename would copy all of it
        for name in (MANIFEST, "_CHECKPOINT_METADATA"):
            (step / name).unlink(missing_ok=True)
        remove_tree(step)
    else:
        remove_tree(step.rename(step.with_name(f"{step.name}.removed")))


def remove_left_overs(directory: Path) -> bool:
    """Removes what interrupted saves and removals left; returns whether there was anything."""
    found = [left for pattern in _LEFT_OVERS for left in directory.glob(pattern)]
    for left in found:
        remove_tree(left)
    return bool(found)


def remove_failed_save(directory: Path, seconds: float = 5.0) -> None:
    """Removes what a save that has just failed wrote.

    Threads of its other arrays may still write and create the directory again, so it must be
    absent three times in a row.

    Args:
      directory: of the checkpoints.
      seconds: time limit; the next start removes what is left then.
    """
    deadline, gone = time.monotonic() + seconds, 0
    while gone < 3 and time.monotonic() < deadline:
        gone = 0 if remove_left_overs(directory) else gone + 1
        time.sleep(0.1)


def set_aside(directory: Path, step: int, as_what: str) -> Path:
    """Renames a step so that it no longer counts as one: `damaged-400`, `damaged-400.1`, ..

    Args:
      directory: of the checkpoints.
      step: which step.
      as_what: prefix of the new name, such as "damaged".

    Returns:
      Its new path.
    """
    target, number = directory / f"{as_what}-{step}", 0
    while target.exists():
        number += 1
        target = directory / f"{as_what}-{step}.{number}"
    return (directory / str(step)).rename(target)


def check_names(directory: Path) -> None:
    """Refuses a directory of checkpoints in which a step has a wrong name.

    Raises:
      UserError: as `check_name`, for the first wrong step; or `directory` is a file.
    """
    if there(directory) and not directory.is_dir():
        raise UserError(f"{str(directory)!r} must be a directory of checkpoints; it is a file")
    for step in sorted(directory.glob("*")):
        if _is_number(step.name):
            check_name(step)


def check_name(step: Path) -> None:
    """Refuses a step whose name is not that in its manifest, as after a copy or renaming by hand.

    Raises:
      UserError: names the step and the step in its manifest; or it is a file.
    """
    if not step.is_dir():
        raise UserError(f"{str(step)!r} must be a checkpoint's directory; move the file away")
    manifest = read_manifest(step)
    held = manifest["step"] if manifest else int(step.name)
    if held != int(step.name):
        raise UserError(
            f"{str(step)!r} holds the checkpoint of step {held}, by its manifest; rename it to "
            f"{held}, or move it away if {held} is there too"
        )


def _numbers(directory: Path) -> list[int]:
    return sorted(
        int(path.name) for path in directory.glob("*") if _is_number(path.name) and path.is_dir()
    )


def _is_number(name: str) -> bool:
    """Whether it is the name of a step: ASCII digits without a sign or leading zeros."""
    return name.isdecimal() and name == str(int(name))
