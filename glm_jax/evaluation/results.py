"""What tasks in files gave: measured metrics, shown as a table, JSON or Markdown, and read again.

    task     examples  metric    value  standard error
    reviews       200  accuracy  0.845  0.0257

JSON holds every example too, so that a later evaluation can be compared with it pairwise.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Outcome
from glm_jax.evaluation.metrics import Measured, measure, signature
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.statistics import RESAMPLES, SEED, Rows
from glm_jax.evaluation.task_files import Identity, TaskFile
from glm_jax.json_files import JsonObject, read_object

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

FORMAT = 1
# Suffix of a file that is written as Markdown instead of JSON.
MARKDOWN = ".md"
_BOOTSTRAP = f"bootstrap over examples, {RESAMPLES} resamples, seed {SEED}"


@dataclasses.dataclass(frozen=True)
class Shown:
    """An example and its answer, to be read.

    Attributes:
      prompt, answer, expected: texts.
    """

    prompt: str
    answer: str
    expected: str


@dataclasses.dataclass(frozen=True)
class Result:
    """A task's outcome for one model.

    Attributes:
      task, kind: of the task.
      fingerprint: of its examples and of how they were asked.
      cut: number of examples whose prompt did not fit the model whole.
      rows: by metric, [n, k], in the order of the examples.
      signatures: by metric, how a package computed it.
      shown: the examples.
    """

    task: str
    kind: str
    fingerprint: str
    cut: int
    rows: Mapping[str, Rows]
    signatures: Mapping[str, str]
    shown: Sequence[Shown]

    @property
    def identity(self) -> Identity:
        """What must be equal where two models are compared."""
        return Identity(self.task, len(self.shown), self.fingerprint, tuple(self.rows))

    def measured(self) -> dict[str, Measured]:
        """The metrics with their standard errors."""
        return {name: measure(name, rows) for name, rows in self.rows.items()}


def prompts_of(lm: "LanguageModel") -> Prompts:
    """What makes prompts for a model.

    Raises:
      UserError: it has no tokenizer.
    """
    if lm.tokenizer is None:
        raise UserError("tasks of texts need a tokenizer; the checkpoint holds none")
    return Prompts(lm.tokenizer, lm.config)


def run_tasks(lm: "LanguageModel", tasks: Sequence[TaskFile]) -> list[Result]:
    """Asks a model all tasks. Nothing is asked before all examples are known to fit the model."""
    prompts = prompts_of(lm)
    prepared = [task.prepared(prompts) for task in tasks]
    return [
        result_of(task, task.kind.ask(lm, task.spec, some), sum(one.cut for one in some))
        for task, some in zip(tasks, prepared, strict=True)
    ]


def result_of(task: TaskFile, outcomes: Sequence[Outcome], cut: int) -> Result:
    """The result of a task's examples, in their order."""
    counts = [len(one.references) for one in task.examples]
    signatures = {name: signature(name, task.spec.wording, counts) for name in task.spec.metrics}
    return Result(
        task.name,
        task.spec.kind,
        task.fingerprint,
        cut,
        {name: np.stack([one.rows[name] for one in outcomes]) for name in task.spec.metrics},
        {name: said for name, said in signatures.items() if said},
        [
            Shown(example.prompt, one.answer, " or ".join(example.references))
            for example, one in zip(task.examples, outcomes, strict=True)
        ],
    )


def as_table(results: Sequence[Result]) -> list[list[str]]:
    """The cells of the table, the heads first."""
    cells = [["task", "examples", "metric", "value", "standard error"]]
    for result in results:
        for name, found in result.measured().items():
            error = "-" if math.isnan(found.standard_error) else f"{found.standard_error:.3g}"
            cells.append([result.task, f"{found.examples:,}", name, f"{found.value:.4g}", error])
    return cells


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader of the table must know: methods of errors, signatures, cut prompts."""
    methods = {one.method for result in results for one in result.measured().values()}
    said = {
        "mean": "standard errors of means are s / sqrt(n)",
        "bootstrap": f"those of perplexity, bits and BLEU: {_BOOTSTRAP}",
    }
    lines = [text for method, text in said.items() if method in methods]
    for text in dict.fromkeys(text for one in results for text in one.signatures.values()):
        lines.append(text)
    for result in results:
        if result.cut:
            lines.append(
                f"{result.task}: {result.cut} of {len(result.shown)} prompts did not fit the "
                "model's context and lost tokens in front"
            )
    return lines


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A table of text; columns of numbers are set to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(cell) for cell in column[1:]) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "".join(f"{line}\n" for line in lines)


def as_markdown(cells: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """A table of Markdown, with notes behind it."""
    head, *rows = [" | ".join(row) for row in cells]
    text = "".join(f"| {row} |\n" for row in [head, " | ".join(["---"] * len(cells[0])), *rows])
    return text + "".join(f"\n{line[0].upper()}{line[1:]}.\n" for line in lines)


def as_json(checkpoint: str, results: Sequence[Result]) -> JsonObject:
    """All that was found, each example with its numbers."""
    return {
        "format": FORMAT,
        "checkpoint": checkpoint,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "tasks": [_task_as_json(result) for result in results],
    }


def read_results(path: Path) -> tuple[str, list[Result]]:
    """The checkpoint and the results in a file that `as_json` made.

    Raises:
      UserError: it is another file.
    """
    found = read_object(path)
    try:
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        return str(found["checkpoint"]), [_task_from_json(task) for task in found["tasks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not what `evaluate --task DIRECTORY --output FILE.json` writes ({error})"
        ) from error


def _task_as_json(result: Result) -> JsonObject:
    metrics = {}
    for name, one in result.measured().items():
        error = None if math.isnan(one.standard_error) else one.standard_error
        metrics[name] = {
            "value": one.value,
            "standard_error": error,
            "method": one.method,
            "examples": one.examples,
        }
        if name in result.signatures:
            metrics[name]["signature"] = result.signatures[name]
    examples = [
        dataclasses.asdict(shown)
        | {"rows": {name: rows[index].tolist() for name, rows in result.rows.items()}}
        for index, shown in enumerate(result.shown)
    ]
    return {
        "task": result.task,
        "kind": result.kind,
        "fingerprint": result.fingerprint,
        "cut": result.cut,
        "metrics": metrics,
        "examples": examples,
    }


def _task_from_json(task: JsonObject) -> Result:
    examples, metrics = task["examples"], task["metrics"]
    return Result(
        str(task["task"]),
        str(task["kind"]),
        str(task["fingerprint"]),
        int(task["cut"]),
        {name: np.array([one["rows"][name] for one in examples], np.float64) for name in metrics},
        {name: one["signature"] for name, one in metrics.items() if "signature" in one},
        [Shown(one["prompt"], one["answer"], one["expected"]) for one in examples],
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell == "-"
    return True


def write_json(value: JsonObject) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
