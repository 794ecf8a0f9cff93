"""Evaluates a checkpoint: `python -m glm_jax.evaluate --checkpoint DIR --task glm_pretrain`.

Tasks are files (`glm_jax.evaluation.task_files`), or found by name in
`glm_jax.evaluation.registry`, then in SeqIO's registry.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.config import Config
from glm_jax.errors import UserError
from glm_jax.evaluation.metrics_with_files import check_output
from glm_jax.evaluation.registry import HELP, OPTIONS, WITH_FILES, about, check_takes, find_task
from glm_jax.evaluation.request import Request, Task, config_for, is_task_files, own_workdir
from glm_jax.training.run.processes import load_options, run_alike

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    for name in ("num_batches", "num_examples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1; got {value}")
    check_output(args.output, args.task in WITH_FILES)
    if is_task_files(args.task):
        return _main_of_files(args)
    if args.compare is not None:
        raise UserError("--compare is for tasks in files, --task DIRECTORY (docs/evaluation.md)")
    task = find_task(args.task, args.task_module)
    check_takes(args.task, {name: getattr(args, name) for name in OPTIONS})
    config = config_for(args.checkpoint, args.config, args.overrides)
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
    from glm_jax.generation import language_model

    asked = load_options(args)
    if other is not None:
        return language_model.load(other, mesh=asked["mesh"], adapter=None, quantize=None)
    return language_model.load(args.checkpoint, **asked)


def _evaluate(args: argparse.Namespace, task: Task, config: Config) -> None:
    from glm_jax.evaluation.telling import tell
    from glm_jax.training.distributed import on_first

    data = own_workdir(args.checkpoint, args.config, args.overrides)
    request = Request(config, args.split, args.num_batches, args.num_examples, data)
    metrics = task(_load(args), request)
    told = (args.task, metrics, about(args.task, request), args.checkpoint, args.output)
    on_first(lambda: tell(*told), "write the metrics")


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.evaluate",
        description="Evaluates a checkpoint and prints its metrics, one per line.",
        epilog=HELP,
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
