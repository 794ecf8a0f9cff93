"""What a task is to `evaluate`: a function of a model and a request; and what the request says."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax.config import Config
from glm_jax.config.files import apply_overrides, load_config, read_run
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate on.

    Attributes:
      config: of the run, with the user's overrides; only `data` and `objective` are used.
      split: of the corpus, "eval" or "train"; of a SeqIO task, any split that it has. None: the
        held-out split.
      num_batches: batches of `glm_pretrain`, the same as those of an evaluation in training; None:
        each row of one epoch.
      num_examples: number of examples, for tasks that take examples; None: the task's default.
      workdir: of a run that is evaluated on its own data: a warning is printed if the data has
        changed since. None: no such check.
    """

    config: Config
    split: str | None = None
    num_batches: int | None = None
    num_examples: int | None = None
    workdir: Path | None = None


Task = Callable[["LanguageModel", Request], dict[str, float]]


def is_task_files(name: str) -> bool:
    """Whether a name is that of a task file or of a directory, not of a registered task."""
    return name.endswith(".toml") or Path(name).expanduser().is_dir()


def config_for(checkpoint: Path, file: Path | None, overrides: Sequence[str]) -> Config:
    """The config that says what a checkpoint is evaluated on.

    Args:
      checkpoint: of a run, whose record is taken, or of a model alone: the defaults.
      file: a config file instead.
      overrides: of `--set`.

    Raises:
      UserError: an override of the model or of how it runs; a damaged record.
    """
    from glm_jax.checkpoints.finding import RUN, find_workdir

    workdir = find_workdir(checkpoint)
    fixed = ("model.", "compute.", "mesh.")
    refused = [override for override in overrides if override.strip().startswith(fixed)]
    if refused:
        raise UserError(
            f"--set {refused[0]}: the model of --checkpoint cannot be changed, nor how it runs, "
            "but for its devices: --mesh fsdp=8"
        )
    if file is not None:
        return load_config(file, overrides)
    config = Config() if workdir is None else read_run(workdir / RUN)[0]
    return apply_overrides(config, overrides)


def own_workdir(checkpoint: Path, file: Path | None, overrides: Sequence[str]) -> Path | None:
    """The workdir of the run whose own data `config_for` names; None: it is other data."""
    from glm_jax.checkpoints.finding import find_workdir

    if file is not None or any(override.strip()[:5] == "data." for override in overrides):
        return None
    return find_workdir(checkpoint)
