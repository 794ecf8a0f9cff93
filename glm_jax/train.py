"""Trains a model: `python -m glm_jax.train --config configs/tiny_cpu.py --workdir runs/tiny`."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.config import by_name
from glm_jax.errors import UserError
from glm_jax.training.joining import Network, join_for, network_of
from glm_jax.training.run.beginning import process_begins
from glm_jax.training.run.compilations import keep_compilations
from glm_jax.training.run.freed_memory import keep_memory
from glm_jax.training.run.interrupts import ending_at_once
from glm_jax.training.run.watching import end_with_parent, is_child, run_together, watch

if TYPE_CHECKING:
    from glm_jax.config import Config
    from glm_jax.tokenizers.protocol import Tokenizer
    from glm_jax.training.watch.tasks import Tasks

_STATUS = """exit status:
  0    done, or there was nothing left to do
  1    the loss is no longer finite, or a metric is above its limit (train.stop_above; the last good
       checkpoint stays), or a bug (with a traceback)
  2    a mistake in the config or the workdir, or another run owns the workdir; nothing is written
  3    the disk is full, read-only or broken, or the bucket fails; the last good checkpoint stays
  4    another process of the run was lost; the last checkpoint is whole
  143  stopped by SIGTERM, 130 by SIGINT, with a checkpoint saved if a step was done; a second
       signal ends the process at once, and so does train.preemption_deadline, of several processes,
       where no save has begun by then

Of several processes all end with the status of the one that failed or was stopped.

The same command resumes a stopped or killed run, with the same result as without the stop.

On several hosts start the same command on each. TPU slices, SLURM, Open MPI and Kubernetes are
detected; elsewhere give --coordinator HOST:PORT, --num_processes N and --process_id I, or the
variables COORDINATOR, NUM_PROCESSES and PROCESS_ID. All processes write to one workdir.

To train a run longer, raise train.num_steps. If learning rates do not depend on it
(optimizer.schedule=constant, or optimizer.decay_steps set), a run of N steps that is resumed to M
equals a run of M steps, bit for bit. Other schedules need --extend too: steps that were done keep
their learning rates, and later steps move to the rates of a run of M steps within
optimizer.warmup_steps. run.json records the extension, so that the same command resumes it."""


def main() -> int:
    process_begins()
    # Signals are handled from here on, before anything slow is imported.
    with ending_at_once():
        args = _parser().parse_args()
        network = network_of(args)
        if network is None:
            return _main(args)
        if is_child():
            end_with_parent()
            return run_together(lambda: _main(args, network), args.lost_after)
    return watch(network.process_id)


def _main(args: argparse.Namespace, network: Network | None = None) -> int:
    if args.skip_batches and args.resume_step is None:
        raise UserError("--skip_batches needs --resume_step, the checkpoint before the batches")
    config = cli.config_from(args)
    if args.accept_data_change:
        settings = dataclasses.replace(config.train, accept_data_change=True)
        config = dataclasses.replace(config, train=settings)

    if network is not None:
        # Before jax touches a device. Threads of the network allocate little, and nothing large.
        join_for(network, args, by_name(config))
    keep_memory(config.train.keep_freed_memory)

    import jax

    from glm_jax.checkpoints.retention import saved_steps
    from glm_jax.data.stream import RowStream
    from glm_jax.pipeline.batches import batches
    from glm_jax.pipeline.references import with_reference
    from glm_jax.sharding.mesh import make_mesh
    from glm_jax.tokenizers.tokenizer import load_tokenizer
    from glm_jax.training.loop import train
    from glm_jax.training.run.extension import extended
    from glm_jax.training.run.rewind import Rewind
    from glm_jax.training.run.start import starting_point
    from glm_jax.training.run.workdir import read_record
    from glm_jax.training.watch.profiling import ProfiledSteps
    from glm_jax.training.watch.tasks import Watched

    profile = ProfiledSteps.parse(args.profile) if args.profile else None
    rewind = None if args.resume_step is None else Rewind(args.resume_step, args.skip_batches)
    if args.extend:
        newest = max(saved_steps(args.workdir / "checkpoints"), default=0)
        config = extended(config, read_record(args.workdir), args.resume_step or newest)
    if jax.default_backend() != "cpu":
        keep_compilations()
    tokenizer = load_tokenizer(config.data.tokenizer)
    mesh = make_mesh(config.mesh)
    config, params = starting_point(config, args.workdir, mesh, args.overrides)
    config = with_reference(config, args.workdir, mesh, params)

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return batches(config, split, shard_index, num_shards)

    watched = Watched(profile, tasks_of(config, tokenizer))
    return train(config, args.workdir, open_batches, tokenizer, params, rewind, watched)


def tasks_of(config: "Config", tokenizer: "Tokenizer") -> "Tasks | None":
    """The tasks of `train.eval_tasks`, read and known to fit the model; None: there are none."""
    from glm_jax.evaluation.in_training import check_best_metric, tasks_in_training
    from glm_jax.evaluation.registry import find_task
    from glm_jax.generation.language_model import LanguageModel

    tasks = None
    if config.train.eval_tasks is not None:
        tasks = tasks_in_training(
            config,
            tokenizer,
            find_task,
            lambda params: LanguageModel(config.resolved_model, params, tokenizer),
        )
    check_best_metric(config.train, tasks)
    return tasks


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.train",
        description="Trains a model on text, or resumes the run in a workdir.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_arguments(parser)
    cli.add_process_arguments(parser)
    parser.add_argument(
        "--workdir",
        required=True,
        type=cli.path_or_bucket,
        metavar="DIR",
        help="for checkpoints, metrics.jsonl, samples.txt, answers.txt, ..; created if missing; "
        "gs://BUCKET/NAME for one in a bucket",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="train a run longer than it was planned for, to a larger train.num_steps (see below)",
    )
    parser.add_argument(
        "--resume_step",
        type=int,
        metavar="N",
        help="resume from the checkpoint of step N; later ones are moved to DIR/rewound (give this "
        "once: repeating the command would go back again)",
    )
    parser.add_argument(
        "--skip_batches",
        type=int,
        default=0,
        metavar="COUNT",
        help="with --resume_step: skip the next COUNT batches; recorded for later resumes",
    )
    parser.add_argument(
        "--accept_data_change",
        action="store_true",
        help="resume a run whose corpus or tokenizer has changed; the change is recorded in "
        "DIR/data.json (give this once)",
    )
    parser.add_argument(
        "--profile",
        metavar="FIRST:COUNT",
        help="trace COUNT steps from step FIRST into DIR/profile",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
