"""Evaluates registered SeqIO tasks with `seqio.Evaluator` and any function that scores rows."""

from collections.abc import Callable, Mapping

import numpy as np
import seqio
import tensorflow as tf

from glm_jax.batch import Batch
from glm_jax.errors import UserError, did_you_mean
from glm_jax.losses.scores import SUMS
from glm_jax.tasks.converter import GlmFeatureConverter
from glm_jax.tasks.features import FIELDS

_SPLITS = ("eval", "validation", "test")

# Rows [B, T] -> sums per row by name (`glm_jax.losses.scores.SUMS`), [B, 5] each.
ScoreRows = Callable[[Batch], Mapping[str, np.ndarray]]


def evaluate_task(
    name: str,
    score_rows: ScoreRows,
    *,
    length: int,
    batch_size: int,
    pad_id: int = 0,
    split: str | None = None,
    num_examples: int | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluates a task, or the tasks of a mixture, with the features of a Batch.

    Args:
      name: of the registered task or mixture.
      score_rows: scores rows with a model.
      length: T.
      batch_size: rows that are scored together.
      pad_id: padding of tokens and targets.
      split: to evaluate; None: the first that exists of "eval", "validation", "test".
      num_examples: rows per task; None: all.

    Returns:
      The metrics of each task, from its `metric_fns`, by the task's name.

    Raises:
      UserError: no such task or split, or a task without metrics or with other features.
    """
    tasks = _tasks(name)
    split = split or next((one for one in _SPLITS if one in tasks[0].splits), _SPLITS[0])
    for task in tasks:
        _check_task(task, split)
    evaluator = seqio.Evaluator(
        name,
        GlmFeatureConverter(pad_id=pad_id),
        eval_split=split,
        sequence_length=dict.fromkeys(FIELDS, length),
        num_examples=num_examples,
    )

    def score(
        dataset: tf.data.Dataset,
    ) -> tuple[list[tuple[int, float]], dict[str, list[np.ndarray]]]:
        rows: list[tuple[int, float]] = []
        sums: dict[str, list[np.ndarray]] = {key: [] for key in SUMS}
        for indices, fields in dataset.batch(batch_size).as_numpy_iterator():
            scored = score_rows(Batch(**fields))
            likelihoods = -scored["losses"].sum(axis=1)
            rows += zip(indices.tolist(), likelihoods.tolist(), strict=True)
            for key in SUMS:
                sums[key] += list(scored[key])
        return rows, sums

    metrics, _ = evaluator.evaluate(compute_metrics=True, score_fn=score)
    found = {task: dict(values) for task, values in metrics.result().items()}
    evaluator.close()
    return found


def registered_names() -> list[str]:
    """The names of all tasks and mixtures registered so far."""
    return sorted(seqio.TaskRegistry.names() | seqio.MixtureRegistry.names())


def _check_task(task: seqio.Task, split: str) -> None:
    """Refuses a task that has no such split, no metrics or other features."""
    if split not in task.splits:
        raise UserError(f"{task.name!r} must have the split {split!r}; it has {[*task.splits]}")
    if not task.metric_fns:
        raise UserError(f"the task {task.name!r} has no metrics; give it metric_fns")
    if set(task.output_features) != set(FIELDS):
        raise UserError(
            f"the task {task.name!r} must give the features {sorted(FIELDS)}; it gives "
            f"{sorted(task.output_features)}"
        )


def _tasks(name: str) -> list[seqio.Task]:
    names = registered_names()
    if name not in names:
        raise UserError(
            f"no SeqIO task {name!r} is registered{did_you_mean(name, names)}; registered: {names}"
        )
    return seqio.get_subtasks(seqio.get_mixture_or_task(name))
