"""Tasks that are evaluated during training; `glm_jax.evaluation` makes them, and the loop asks.

step 200   tasks(params)  ->  a row {"step": 200, "eval/reviews/accuracy": 0.845}
                          ->  a section of answers.txt: prompts, answers, what was expected
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from glm_jax.models.trees import Params
from glm_jax.training.watch.profiling import ProfiledSteps

ANSWERS = "answers.txt"


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model made of the tasks.

    Attributes:
      values: metrics by their names in metrics.jsonl, "eval/reviews/accuracy".
      line: these, to be printed.
      shown: some examples of each task, lines for `answers.txt`.
    """

    values: Mapping[str, float]
    line: str
    shown: str


@runtime_checkable
class Tasks(Protocol):
    """Asks a model all tasks.

    Attributes:
      fingerprint: of their examples, the same on all processes.
    """

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, params: Params) -> Answers:
        """To be called by every process that holds parameters, stacked; all get the same."""
        ...


@dataclasses.dataclass(frozen=True)
class Watched:
    """What a start of a run looks at beside its losses.

    Attributes:
      profile: steps to be traced into `workdir/profile`.
      tasks: to be evaluated every `train.eval_tasks_every` steps.
    """

    profile: ProfiledSteps | None = None
    tasks: Tasks | None = None
