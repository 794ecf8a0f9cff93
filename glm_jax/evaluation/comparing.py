"""Two models on the same tasks: differences with their intervals and p, example by example.

task     metric    runs/before  runs/after  difference  95 % interval     p       test
reviews  accuracy  0.7250       0.8450      +0.1200     +0.0550 +0.1850   0.0004  McNemar
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_jax.errors import UserError
from glm_jax.evaluation.metrics import measure, metric_of
from glm_jax.evaluation.statistics import RESAMPLES, SEED, Difference, compare
from glm_jax.json_files import JsonObject

if TYPE_CHECKING:
    from glm_jax.evaluation.results import Result
    from glm_jax.evaluation.task_files import Identity

NOTE = (
    "difference: the checkpoint's minus the baseline's; intervals of 95 % by paired bootstrap over "
    f"examples, {RESAMPLES} resamples, seed {SEED}; p two-sided, of 0/1 metrics McNemar's exact "
    "test, of others the bootstrap's"
)

# Of a task and a metric.
Differences = dict[tuple[str, str], Difference]


def check_same(first: Sequence["Identity"], second: Sequence["Identity"]) -> None:
    """Refuses results that cannot be compared.

    Raises:
      UserError: other tasks, other examples, or other metrics; names the first.
    """
    names, others = [one.task for one in first], [one.task for one in second]
    if names != others:
        raise UserError(
            f"--compare needs the same tasks on both sides; there are {', '.join(names)}, and "
            f"{', '.join(others)}"
        )
    for one, other in zip(first, second, strict=True):
        if one.examples != other.examples:
            raise UserError(
                f"--compare needs the same examples on both sides; the task {one.task!r} has "
                f"{one.examples} and {other.examples}"
            )
        if one.fingerprint != other.fingerprint:
            raise UserError(
                f"--compare needs the same examples on both sides; those of the task {one.task!r}, "
                "or how they are asked, are other ones"
            )
        if one.metrics != other.metrics:
            raise UserError(
                f"--compare needs the same metrics on both sides; the task {one.task!r} has "
                f"{', '.join(one.metrics)}, and {', '.join(other.metrics)}"
            )


def differences(first: Sequence["Result"], second: Sequence["Result"]) -> Differences:
    """Every metric of every task: second minus first; errors as of `check_same`."""
    check_same([one.identity for one in first], [one.identity for one in second])
    return {
        (one.task, name): compare(rows, other.rows[name], metric_of(name).value)
        for one, other in zip(first, second, strict=True)
        for name, rows in one.rows.items()
    }


def as_table(
    first: Sequence["Result"], second: Sequence["Result"], found: Differences
) -> list[list[str]]:
    """The cells of the table, the heads first.

    Args:
      first, second: results of the baseline and of the checkpoint.
      found: `differences` of these.
    """
    models, differing = ["baseline", "checkpoint"], ["difference", "95 % interval", "p", "test"]
    cells = [["task", "examples", "metric", *models, *differing]]
    for one, other in zip(first, second, strict=True):
        for name, rows in one.rows.items():
            difference = found[one.task, name]
            cells.append(
                [
                    one.task,
                    f"{len(rows):,}",
                    name,
                    f"{measure(name, rows).value:.4g}",
                    f"{measure(name, other.rows[name]).value:.4g}",
                    f"{difference.difference:+.4g}",
                    f"{difference.low:+.4g} to {difference.high:+.4g}",
                    f"{difference.p:.2g}",
                    difference.test,
                ]
            )
    return cells


def as_json(found: Differences) -> list[JsonObject]:
    """The differences, each with its task and metric."""
    return [
        {
            "task": task,
            "metric": metric,
            "difference": one.difference,
            "interval": [one.low, one.high],
            "p": one.p,
            "test": one.test,
        }
        for (task, metric), one in found.items()
    ]
