"""Sends the rows of metrics.jsonl to TensorBoard and Weights & Biases, if the config asks for it.

    WORKDIR/tensorboard/    event files; a resumed run purges the steps that it will write again
           /wandb.json      {"project": "glm", "id": "8f3a11c2"}: the W&B run to continue
           /wandb/          W&B's own files

Each package is needed only if it is used; neither needs TensorFlow.
"""

import importlib
import json
import logging
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from glm_jax.config import Config, to_dict
from glm_jax.errors import UserError, how_to_install
from glm_jax.files import write_whole

_LOG = logging.getLogger(__name__)


@runtime_checkable
class Tracker(Protocol):
    """A destination for rows of metrics."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(config: Config) -> None:
    """Refuses trackers whose package is not installed.

    Raises:
      ValueError: names the setting and the package.
    """
    for name, wanted, package in (
        ("tensorboard", config.train.tensorboard, "tensorboardX"),
        ("wandb", config.train.wandb is not None, "wandb"),
    ):
        if not wanted:
            continue
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"train.{name}={getattr(config.train, name)!r} needs the package {package}, which "
                f"is not installed; install it with: {how_to_install('tracking')}"
            ) from error


def open_trackers(config: Config, workdir: Path, last_step: int) -> list[Tracker]:
    """Opens the trackers that the config asks for.

    Args:
      config: of the run.
      workdir: of the run.
      last_step: the step that the run resumes after; 0 for a new run.
    """
    trackers: list[Tracker] = []
    if config.train.tensorboard:
        trackers.append(_TensorBoard(workdir / "tensorboard", last_step))
    if config.train.wandb is not None:
        trackers.append(_Wandb(config, workdir))
    return trackers


class _TensorBoard:
    def __init__(self, directory: Path, last_step: int):
        from tensorboardX import SummaryWriter

        purge = last_step + 1 if last_step else None
        # Files are named by the second: a restart within it must not overwrite this start's file.
        suffix = f".after-{last_step}"
        self._writer = SummaryWriter(str(directory), purge_step=purge, filename_suffix=suffix)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in _finite(values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, config: Config, workdir: Path):
        import wandb

        record = workdir / "wandb.json"
        known: dict[str, str] = _known_run(record)
        if known.get("project") != config.train.wandb:
            known = {"project": str(config.train.wandb), "id": secrets.token_hex(4)}
            # Written before W&B is called: a kill in between must not make a second run.
            write_whole(record, json.dumps(known).encode())
        self._run = wandb.init(
            **known, name=workdir.name, dir=str(workdir), config=to_dict(config), resume="allow"
        )
        # W&B drops rows of earlier steps than its last; a resumed run repeats some.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **_finite(values)})

    def close(self) -> None:
        self._run.finish()


def _known_run(record: Path) -> dict[str, str]:
    """The project and id that an earlier start wrote; {} if there are none, or not readable."""
    if not record.exists():
        return {}
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return {"project": str(known["project"]), "id": str(known["id"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        _LOG.warning("%s is not the record of a W&B run; its rows go to a new one", record)
        return {}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
