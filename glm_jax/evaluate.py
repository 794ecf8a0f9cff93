"""Evaluates a checkpoint: `python -m glm_jax.evaluate --checkpoint DIR --task glm_pretrain`.

A task is a function from a loaded model and a `Request` to numbers by name; `TASKS` has those that
come with the package. Any other name is looked for in SeqIO's registry.
"""

import argparse
import dataclasses
import importlib.util
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.config import Config, from_dict
from glm_jax.config_files import apply_overrides, load_config
from glm_jax.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from glm_jax.inference.language_model import LanguageModel

# Held-out examples that a task takes where --num_examples does not say.
EXAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate on.

    Attributes:
      config: of the run, with the user's changes; its `data` and `objective` count.
      split: of the corpus, "eval" or "train"; of a SeqIO task, any that it has. None: held-out.
      num_batches: batches of `glm_pretrain`, the same as those of an evaluation in training; None:
        each row of one epoch.
      num_examples: of tasks that take examples; None: a number of their own.
      task_module: registers SeqIO tasks when it is imported.
    """

    config: Config
    split: str | None = None
    num_batches: int | None = None
    num_examples: int | None = None
    task_module: str | None = None


Task = Callable[["LanguageModel", Request], dict[str, float]]


def pretrain(lm: "LanguageModel", request: Request) -> dict[str, float]:
    """Loss, perplexity and accuracy of each objective on rows of the run's corpus.

    Needs no TensorFlow where the corpus is files or its token store is there.
    """
    from glm_jax import pipeline
    from glm_jax.data.scores import mean_metrics
    from glm_jax.data.stream import RowStream
    from glm_jax.inference.row_scores import total_sums

    config, count = request.config, request.num_batches
    stream = RowStream(
        pipeline.rows(config, request.split or "eval"),
        config.data.batch_size,
        config.train.seed,
        shuffle=False,
        repeat=count is not None,
    )
    try:
        return mean_metrics(total_sums(lm, islice(stream, count)))
    finally:
        stream.close()


TASKS: dict[str, Task] = {"glm_pretrain": pretrain}


def find_task(name: str, module: str | None = None) -> Task:
    """The task of a name: of `TASKS`, of `glm_jax.inference.evaluation_tasks`, or of SeqIO.

    Raises:
      UserError: SeqIO is needed and not installed. Whether it knows the name is seen when the task
        is run.
    """
    if name in TASKS:
        return TASKS[name]
    answers = _tasks_of_answers()
    if name in answers:

        def of_answers(lm: "LanguageModel", request: Request) -> dict[str, float]:
            return answers[name](lm, lm.tokenizer, request.num_examples or EXAMPLES)

        return of_answers
    if module is None and importlib.util.find_spec("seqio") is None:
        known = sorted({*TASKS, *answers})
        raise UserError(
            f"unknown task {name!r}{did_you_mean(name, known)}; known: {known}, and the tasks of "
            "SeqIO, which is not installed (glm_jax[tasks])"
        )

    def of_seqio(lm: "LanguageModel", request: Request) -> dict[str, float]:
        return _evaluate_seqio(name, lm, request)

    return of_seqio


def _tasks_of_answers() -> dict[str, Callable]:
    """Tasks with texts to be answered or judged, (model, tokenizer, examples) -> numbers."""
    from glm_jax.inference import evaluation_tasks

    return evaluation_tasks.TASKS


def _evaluate_seqio(name: str, lm: "LanguageModel", request: Request) -> dict[str, float]:
    from glm_jax.inference.row_scores import row_sums
    from glm_jax.tasks.evaluation import evaluate_task

    data = request.config.data
    found = evaluate_task(
        name,
        lambda batch: row_sums(lm, batch),
        length=data.sequence_length,
        batch_size=data.batch_size,
        pad_id=lm.special.pad if lm.special else 0,
        split=request.split,
        num_examples=request.num_examples,
        module=request.task_module,
    )
    if len(found) == 1:
        return next(iter(found.values()))
    return {f"{task}/{key}": value for task, of in found.items() for key, value in of.items()}


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    for name in ("num_batches", "num_examples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1; got {value}")
    if args.output is not None and not args.output.resolve().parent.is_dir():
        raise UserError(f"--output: no directory {str(args.output.resolve().parent)!r}")
    task = find_task(args.task, args.task_module)
    config = _config(args)

    from glm_jax.inference.language_model import load

    lm = load(args.checkpoint)
    request = Request(config, args.split, args.num_batches, args.num_examples, args.task_module)
    metrics = task(lm, request)
    for key, value in metrics.items():
        print(f"{key:<24} {value:.6g}")
    if args.output is not None:
        result = {"checkpoint": str(args.checkpoint), "task": args.task, "metrics": metrics}
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _config(args: argparse.Namespace) -> Config:
    """The run's own config, or that of --config, with the changes of --set."""
    from glm_jax.inference.language_model import RUN, find_workdir

    workdir = find_workdir(args.checkpoint)
    if args.config is not None:
        return load_config(args.config, args.overrides)
    config = Config()
    if workdir is not None:
        config = from_dict(json.loads((workdir / RUN).read_text(encoding="utf-8")))
    return apply_overrides(config, args.overrides)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm_jax.evaluate",
        description="Evaluates a checkpoint and prints what it finds, a number a line.",
        epilog="glm_pretrain: loss, perplexity and accuracy of each objective on the held-out rows "
        "of the run's own corpus. cloze, last_word, perplexity, perplexity_bidirectional: on "
        "examples made of held-out bundled text. Any other name: a registered SeqIO task or "
        "mixture whose features are those of a Batch.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="DIR",
        help="a workdir of glm_jax.train, one of its checkpoints, or a Hugging Face directory",
    )
    parser.add_argument("--task", default="glm_pretrain", help="(default: %(default)s)")
    parser.add_argument("--split", help="of the corpus or the task (default: what is held out)")
    parser.add_argument(
        "--num_batches",
        type=int,
        help="of glm_pretrain: as many as train.eval_batches gives the eval/loss of training "
        "(default: each held-out row once)",
    )
    parser.add_argument("--num_examples", type=int, help="of tasks that take examples")
    parser.add_argument("--task_module", help="a Python module that registers SeqIO tasks")
    parser.add_argument("--config", metavar="FILE", help="in place of the run's own config")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="NAME=VALUE",
        help="change one value of the config, for example data.source=other/*.txt",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers as JSON too")
    return parser


if __name__ == "__main__":
    cli.run(main)
