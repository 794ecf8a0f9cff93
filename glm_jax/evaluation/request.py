"""What a task is to `evaluate`: a function of a model and a request; and which names are files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax.config import Config

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
