"""The report of `evaluate --task DIRECTORY`, of one model or of two that are compared."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax.evaluation import comparing, results
from glm_jax.evaluation.results import Result, read_results, run_tasks
from glm_jax.evaluation.task_files import TaskFile
from glm_jax.files import write_whole
from glm_jax.json_files import JsonObject

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class Report:
    """What is printed and written.

    Attributes:
      cells: of the table, the heads first.
      notes: below it.
      json: all of it.
    """

    cells: Sequence[Sequence[str]]
    notes: Sequence[str]
    json: JsonObject

    def text(self) -> str:
        """The table as text."""
        return results.aligned(self.cells)

    def tell(self, output: Path | None) -> None:
        """Prints the table, its notes on standard error, and writes --output."""
        print(self.text(), end="")
        for note in self.notes:
            print(note, file=sys.stderr)
        if output is not None:
            write_whole(output, self.content(output))

    def content(self, path: Path) -> str:
        """What a file is to hold, by its suffix."""
        if path.suffix == results.MARKDOWN:
            return results.as_markdown(self.cells, self.notes)
        return results.write_json(self.json)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The other side of a comparison.

    Attributes:
      name: of the checkpoint.
      found: its results, where they were in a file; None: the model is asked.
    """

    name: str
    found: Sequence[Result] | None = None


def baseline_of(compare: str, tasks: Sequence[TaskFile]) -> Baseline:
    """The other side: a file of results, or a checkpoint.

    Raises:
      UserError: the file has results of other tasks or examples.
    """
    if not compare.endswith(".json"):
        return Baseline(compare)
    name, found = read_results(Path(compare).expanduser())
    comparing.check_same([one.identity for one in found], [one.identity for one in tasks])
    return Baseline(name, found)


def report(
    tasks: Sequence[TaskFile],
    load: Callable[[], "LanguageModel"],
    name: str,
    baseline: Baseline | None = None,
    load_baseline: Callable[[], "LanguageModel"] | None = None,
) -> Report:
    """Evaluates a model on tasks, and compares it with another.

    Args:
      tasks: one at least.
      load, name: of the model. Models are loaded one after the other, and given up.
      baseline: to compare with; None: nothing.
      load_baseline: the model of a baseline whose results are not known.
    """
    before: Sequence[Result] | None = None
    if baseline is not None:
        before = baseline.found
        if before is None and load_baseline is not None:
            before = run_tasks(load_baseline(), tasks)
    after = run_tasks(load(), tasks)
    found = results.as_json(name, after)
    if baseline is None or before is None:
        return Report(results.as_table(after), results.notes(after), found)
    differences = comparing.differences(before, after)
    cells = comparing.as_table(before, after, differences)
    found["compared_with"] = results.as_json(baseline.name, before)
    found["differences"] = comparing.as_json(differences)
    who = f"baseline: {baseline.name}; checkpoint: {name}"
    notes = [who, comparing.NOTE, *results.notes(after)]
    return Report(cells, list(dict.fromkeys([*notes, *results.notes(before)])), found)
