"""The tasks of `train.eval_tasks`, asked during training: directories, files and registered names.

    train.eval_tasks = "my_tasks,last_word"
        step 200    eval/reviews/accuracy 0.845, eval/last_word/accuracy 0.12

`train.py` makes them and hands them to the loop, which knows no task.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax.config.training import TrainConfig, task_and_metric
from glm_jax.errors import UserError, did_you_mean
from glm_jax.evaluation.asked import Prepared
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.request import Request, Task, is_task_files
from glm_jax.evaluation.results import Result, result_of
from glm_jax.evaluation.task_files import TaskFile, read_tasks
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.watch.tasks import Answers, Tasks

if TYPE_CHECKING:
    from glm_jax.config import Config
    from glm_jax.generation.language_model import LanguageModel
    from glm_jax.models.trees import Params

_SHOWN = 3  # examples of a task in answers.txt
_LONGEST = 400  # characters of a text there
# Metrics of registered tasks that say nothing of the model.
_CONSTANT = ("examples", "chance", "tokens", "targets")


class TasksInTraining:
    """Asks a model all tasks.

    Attributes:
      metrics: names of those known before, "eval/reviews/accuracy".
      registered: names of the tasks whose metrics are known only when they are asked.
    """

    def __init__(
        self,
        files: Sequence[tuple[TaskFile, Sequence[Prepared]]],
        registered: Mapping[str, Callable[["LanguageModel"], Mapping[str, float]]],
        make_model: Callable[["Params"], "LanguageModel"],
    ):
        """Args:
        files: tasks in files, with their prompts.
        registered: others, by name.
        make_model: of parameters as training has them.
        """
        self._files, self._others, self._make_model = files, registered, make_model
        self.registered = list(registered)
        self.metrics = [
            f"eval/{task.name}/{name}" for task, _ in files for name in task.spec.metrics
        ]

    @property
    def fingerprint(self) -> str:
        """Of all examples, and of the names of registered tasks."""
        parts = [*(task.fingerprint for task, _ in self._files), *self.registered]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __call__(self, params: "Params") -> Answers:
        """Asks a model of these parameters; every process gets the same."""
        lm = self._make_model(params)
        results = [
            result_of(task, task.kind.ask(lm, task.spec, some), sum(one.cut for one in some))
            for task, some in self._files
        ]
        values: dict[str, float] = {}
        for result in results:
            for name, found in result.measured().items():
                values[f"eval/{result.task}/{name}"] = found.value
        for task, ask in self._others.items():
            for name, value in ask(lm).items():
                if not name.startswith(_CONSTANT):
                    values[f"eval/{task}/{name}"] = float(value)
        said = [
            f"{name.removeprefix('eval/')} {value:.4g}"
            for name, value in values.items()
            if math.isfinite(value)
        ]
        return Answers(values, ", ".join(said), "".join(map(section, results)))


def tasks_in_training(
    config: "Config",
    tokenizer: Tokenizer,
    find_task: Callable[[str], Task],
    make_model: Callable[["Params"], "LanguageModel"],
) -> TasksInTraining:
    """Reads the tasks of `train.eval_tasks`, and makes their prompts.

    Args:
      config: of the run, with the shape of its model.
      tokenizer: of its data.
      find_task: `glm_jax.evaluation.registry.find_task`.
      make_model: of parameters as training has them.

    Raises:
      UserError: there is no such task, two have one name, or an example does not fit the model.
    """
    prompts = Prompts(tokenizer, config.model.resolved())
    files: list[tuple[TaskFile, Sequence[Prepared]]] = []
    others: dict[str, Callable[[LanguageModel], Mapping[str, float]]] = {}
    request = Request(
        config, num_batches=config.train.eval_batches, num_examples=config.train.eval_examples
    )
    names = [name.strip() for name in (config.train.eval_tasks or "").split(",")]
    for name in names:
        if is_task_files(name):
            tasks = read_tasks(Path(name).expanduser(), config.train.eval_examples)
            files += [(task, task.prepared(prompts)) for task in tasks]
        else:
            others[name] = functools.partial(_ask, find_task(name), request)
    every = [*(task.name for task, _ in files), *others]
    for name in every:
        if every.count(name) > 1:
            raise UserError(f"train.eval_tasks has two tasks of the name {name!r}")
    return TasksInTraining(files, others, make_model)


def _ask(task: Task, request: Request, lm: "LanguageModel") -> Mapping[str, float]:
    return task(lm, request)


def check_best_metric(train: TrainConfig, tasks: Tasks | None) -> None:
    """Refuses checkpoints that are kept by a metric that no task has.

    Raises:
      UserError: names the metrics that there are.
    """
    asked = task_and_metric(train.best_metric)
    if not train.keep_best or asked is None:
        return
    known = tasks.metrics if isinstance(tasks, TasksInTraining) else []
    others = tasks.registered if isinstance(tasks, TasksInTraining) else []
    if train.best_metric not in known and asked[0] not in others:
        there = ", ".join(known) or "none, without train.eval_tasks"
        raise UserError(
            f"train.best_metric={train.best_metric!r} is no metric of train.eval_tasks"
            f"{did_you_mean(train.best_metric, known)}; there are {there}"
        )


def section(result: Result) -> str:
    """Lines on a task for answers.txt: its metrics, and its first examples.

    reviews: accuracy 0.845 (standard error 0.026)
      prompt:   Never again. It was [MASK].
      answer:   terrible
      expected: terrible
    """
    said = []
    for name, found in result.measured().items():
        error = found.standard_error
        more = "" if math.isnan(error) else f" (standard error {error:.2g})"
        said.append(f"{name} {found.value:.4g}{more}")
    lines = [f"  {result.task}: {', '.join(said)}"]
    for one in result.shown[:_SHOWN]:
        lines += [
            f"    prompt:   {_one_line(one.prompt)}",
            f"    answer:   {_one_line(one.answer)}",
        ]
        if one.expected:
            lines.append(f"    expected: {_one_line(one.expected)}")
    return "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> str:
    """A text on one line; of a long one its end, where the question is."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"… {line[-_LONGEST:]}"
