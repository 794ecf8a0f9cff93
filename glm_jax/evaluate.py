"""Evaluates a checkpoint: `python -m glm_jax.evaluate --checkpoint DIR --task glm_pretrain`.

Tasks are files (`glm_jax.evaluation.task_files`), or found by name in
`glm_jax.evaluation.registry`, then in SeqIO's registry.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.config import Config
from glm_jax.config.files import apply_overrides, load_config, read_run
from glm_jax.errors import UserError
from glm_jax.evaluation.metrics_with_files import MetricsWithFiles, check_directory
from glm_jax.evaluation.registry import WITH_FILES, about, find_task
from glm_jax.evaluation.request import Request, Task, is_task_files
from glm_jax.files import write_whole
from glm_jax.training.run.processes import run_alike, wanted_mesh

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    for name in ("num_batches", "num_examples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1; got {value}")
    if args.output is not None and not args.output.resolve().parent.is_dir():
        raise UserError(f"--output: no directory {str(args.output.resolve().parent)!r}")
    if is_task_files(args.task):
        return _main_of_files(args)
    if args.compare is not None:
        raise UserError("--compare is for tasks in files, --task DIRECTORY (docs/evaluation.md)")
    if args.output is not None and args.task in WITH_FILES:
        check_directory(args.output)
    task = find_task(args.task, args.task_module)
    config = _config(args)
    return run_alike(lambda: _evaluate(args, task, config), args)


def _main_of_files(args: argparse.Namespace) -> int:
    """Evaluates on tasks in files, and compares with --compare."""
    from glm_jax.evaluation.reporting import baseline_of, report
    from glm_jax.evaluation.task_files import read_tasks
    from glm_jax.training.distributed import on_first, require_same

    for name in ("split", "num_batches", "task_module", "config", "overrides"):
        if getattr(args, name):
            option = "set" if name == "overrides" else name
            raise UserError(f"--{option} is not for tasks in files; {args.task!r} is one")
    tasks = read_tasks(Path(args.task).expanduser(), args.num_examples)
    baseline = None if args.compare is None else baseline_of(args.compare, tasks)

    def evaluate() -> None:
        require_same({f"the task {task.name!r}": task.fingerprint for task in tasks})
        found = report(
            tasks,
            lambda: _load(args),
            str(args.checkpoint),
            baseline,
            lambda: _load(args, cli.model(args.compare)),
        )

        on_first(lambda: found.tell(args.output), "write the results")

    return run_alike(evaluate, args)


def _load(args: argparse.Namespace, other: Path | None = None) -> "LanguageModel":
    """The model of --checkpoint, or another one as it is, on the devices of --mesh."""
    from glm_jax.adapters.quantising import Quantize
    from glm_jax.generation import language_model
    from glm_jax.sharding.mesh import make_mesh

    wanted, options = wanted_mesh(args.mesh), cli.quantize_options(args)
    mesh = None if wanted is None else make_mesh(wanted)
    if other is not None:
        return language_model.load(other, mesh=mesh, adapter=None, quantize=None)
    how = None if options is None else Quantize(**options)
    return language_model.load(args.checkpoint, mesh=mesh, adapter=args.adapter, quantize=how)


def _evaluate(args: argparse.Namespace, task: Task, config: Config) -> None:
    from glm_jax.checkpoints.finding import find_workdir
    from glm_jax.training.distributed import on_first

    lm = _load(args)
    own = args.config is None and not any(one.strip()[:5] == "data." for one in args.overrides)
    request = Request(
        config,
        args.split,
        args.num_batches,
        args.num_examples,
        find_workdir(args.checkpoint) if own else None,
    )
    metrics = task(lm, request)
    on_first(lambda: _tell(args, request, metrics), "write the metrics")


def _tell(args: argparse.Namespace, request: Request, metrics: dict[str, float]) -> None:
    """Prints the metrics, and writes them to --output."""
    if line := about(args.task, request):
        print(f"{args.task}: {line}", file=sys.stderr)
    for key, value in metrics.items():
        print(f"{key:<24} {value:.6g}")
    if args.output is not None and isinstance(metrics, MetricsWithFiles):
        metrics.write(args.output)
    elif args.output is not None:
        result = {"checkpoint": str(args.checkpoint), "task": args.task, "metrics": metrics}
        from glm_jax.evaluation.results import MARKDOWN, as_markdown

        content = json.dumps(result, indent=2) + "\n"
        if args.output.suffix == MARKDOWN:
            cells = [["metric", "value"], *([key, f"{v:.6g}"] for key, v in metrics.items())]
            content = as_markdown(cells, [line] if line else [])
        write_whole(args.output, content)


def _config(args: argparse.Namespace) -> Config:
    """The config of the run, or of --config, with the overrides of --set."""
    from glm_jax.checkpoints.finding import RUN, find_workdir

    workdir = find_workdir(args.checkpoint)
    fixed = ("model.", "compute.", "mesh.")
    refused = [override for override in args.overrides if override.strip().startswith(fixed)]
    if refused:
        raise UserError(
            f"--set {refused[0]}: the model of --checkpoint cannot be changed, nor how it runs, "
            "but for its devices: --mesh fsdp=8"
        )
    if args.config is not None:
        return load_config(args.config, args.overrides)
    config = Config() if workdir is None else read_run(workdir / RUN)[0]
    return apply_overrides(config, args.overrides)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.evaluate",
        description="Evaluates a checkpoint and prints its metrics, one per line.",
        epilog="A directory: every task in it, NAME.toml with its examples, in one table with "
        "standard errors (docs/evaluation.md). glm_pretrain: loss, perplexity and accuracy of each "
        "objective on the held-out rows of the run's own corpus. infilling_report: likelihoods of "
        "its spans in many orders, and losses by span length, position and order, as a directory "
        "of tables and plots. held_out_cloze: accuracy on the held-out examples of a run on "
        "clozes. blanks, cloze, last_word, perplexity, perplexity_bidirectional: on "
        "examples made from held-out bundled text. Any other name: a registered SeqIO task or "
        "mixture whose features are those of a Batch.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=cli.model,
        metavar="DIR",
        help="a workdir of glm_jax.train, one of its checkpoints, a Hugging Face directory, or "
        "bundled: the small model of the package",
    )
    cli.add_adapter_argument(parser)
    parser.add_argument(
        "--task",
        default="glm_pretrain",
        help="a name, a directory of tasks, or one NAME.toml (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="with a directory: another checkpoint, or the .json that an earlier --output wrote; "
        "prints the difference to it, with interval and p. It is evaluated as it is: --adapter and "
        "--quantize are for --checkpoint alone",
    )
    parser.add_argument("--split", help="split of the corpus or task (default: the held-out one)")
    parser.add_argument(
        "--num_batches",
        type=int,
        help="batches of glm_pretrain; the value of train.eval_batches gives the eval/loss of "
        "training (default: each held-out row once)",
    )
    parser.add_argument(
        "--num_examples", type=int, help="number of examples, for tasks that make or read examples"
    )
    parser.add_argument(
        "--task_module",
        help="a Python module that registers tasks with SeqIO or `glm_jax.evaluation.registry`",
    )
    parser.add_argument(
        "--config",
        type=cli.path,
        metavar="FILE",
        help="used instead of the run's own config; it is run as Python",
    )
    cli.add_set_argument(parser)
    cli.add_mesh_argument(parser)
    cli.add_quantize_arguments(parser, "as they are in the checkpoint")
    parser.add_argument(
        "--output",
        type=cli.path,
        metavar="FILE",
        help="also write the metrics: a table if it ends in .md, else JSON, with every example of "
        "tasks in files; of infilling_report, the directory of the report",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
