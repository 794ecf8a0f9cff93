"""Predicts what a run needs: `python -m glm_jax.plan --config FILE --topology v5e:16x16`."""

import argparse
import functools
import json
import os
import sys

from glm_jax import cli
from glm_jax.config import Config
from glm_jax.config.files import apply_overrides
from glm_jax.errors import UserError

_EXAMPLES = """examples:
  python -m glm_jax.plan --config configs/tiny_cpu.py
      parameters, FLOPs and memory on the devices of this machine
  python -m glm_jax.plan --config FILE --topology v5e:16x16 --topology v5p:4x4x4
      also the time of a step, on TPUs that this machine need not have
  python -m glm_jax.plan --config FILE --topology h100:8
      the same for a host of GPUs
  python -m glm_jax.plan --config FILE --topology v5e:16x16 --tune
      the same for several remat policies, rows per chip and meshes, the best first
  python -m glm_jax.plan --inference --model chatglm3-6b --quantize int4 --topology v5e:1x1
      what decoding takes instead: weights, KV cache, workspace, time of a step

exit status: 0 also if the run does not fit; 1 the compiler failed, with --tune for all choices;
2 a mistake in the config or the topology"""


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.plan",
        description="Compiles a run's training step, or a step of decoding, and predicts its "
        "memory and time. It runs nothing and reads no data.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_arguments(parser, required=False)
    parser.add_argument(
        "--topology",
        action="append",
        default=[],
        metavar="CHIP:SHAPE",
        help="devices to plan for: v5e:4x4 (needs the extra tpu), h100:8 (needs the extra cuda); "
        "may be repeated",
    )
    parser.add_argument(
        "--sequences_per_chip",
        type=cli.positive_integer,
        metavar="N",
        help="rows per chip and micro-batch; sets data.batch_size to N x chips x micro-batches",
    )
    parser.add_argument(
        "--disk_gb_per_second",
        type=cli.positive_number,
        default=1.0,
        metavar="R",
        help="what a host writes to and reads from its disk or bucket, in 10^9 bytes per second "
        "(default 1); says how long a save and a restore take",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per topology on stdout"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="search remat, rows per chip and mesh for the most tokens per second",
    )
    parser.add_argument(
        "--tune_layers",
        type=cli.positive_integer,
        metavar="N",
        help="with --tune: compile N and 2 N layers and extrapolate; the best is compiled in full",
    )
    cli.add_inference_arguments(parser)
    return parser


def main() -> int:
    args = _parser().parse_args()
    inference = cli.inference_options(args)
    config = _config(args)
    if args.tune_layers and not args.tune:
        raise UserError("--tune_layers needs --tune")
    import jax  # noqa: F401  (if it is missing, this process reports it, not the one it starts)

    if args.topology:
        _plan_without_a_backend()
    from glm_jax.planning.apart import run_apart

    reports = run_apart(functools.partial(_reports, config, args, inference), _progress)
    for line in map(json.dumps, reports) if args.json else _texts(reports, args):
        print(line, flush=True)
    failed = [report["failed"] is not None for report in reports]
    return int(bool(failed) and (all(failed) if args.tune else any(failed)))


def _config(args) -> Config:
    """The config of --config, or one of the published model of --model."""
    if (args.config is None) == (args.model is None):
        raise UserError("give one of --config FILE and, with --inference, --model NAME")
    if args.model is None:
        return cli.config_from(args)
    from glm_jax.planning.inference import published

    return apply_overrides(published(args.model), args.overrides)


def _texts(reports: list[dict], args) -> list[str]:
    """The reports as text; several after a table, of which --tune shows the best in full."""
    if args.inference:
        from glm_jax.planning.inference import describe_inference

        return list(map(describe_inference, reports))
    from glm_jax.planning.text import describe, table

    if len(reports) == 1:
        return [describe(reports[0])]
    shown = reports[:1] if args.tune else reports
    return [table(reports), *("\n" + describe(report) for report in shown)]


def _reports(config, args, inference, attempts) -> list[dict]:
    """The reports on all topologies."""
    names = args.topology or [None]
    if inference:
        from glm_jax.planning.inference import attempted_inference

        return [attempted_inference(config, name, attempts, **inference) for name in names]
    from glm_jax.planning.saving import checkpoint_times

    found = [one for name in names for one in _training(config, name, args, attempts)]
    return [one | checkpoint_times(one, args.disk_gb_per_second) for one in found]


def _training(config, name, args, attempts) -> list[dict]:
    """The report of a topology; with --tune the reports of all choices, the best first."""
    import jax

    from glm_jax.planning.program import prepare
    from glm_jax.planning.report import attempted
    from glm_jax.planning.topologies import topology_devices
    from glm_jax.planning.tune import tune
    from glm_jax.training.run.start import planned_config

    config = planned_config(config, args.overrides)
    devices = topology_devices(name) if name else jax.devices()

    def measure(config, mesh):
        return attempted(config, mesh, name, attempts)

    rows = args.sequences_per_chip
    if args.tune:
        return tune(config, devices, measure, rows, args.tune_layers, attempts.say)
    ready, mesh = prepare(config, devices, rows)
    attempts.say(f"compiling for {name or 'the devices at hand'} ...")
    return [measure(ready, mesh)]


def _plan_without_a_backend() -> None:
    """Keeps jax on CPU: planning must not take the TPU that a run on this machine may use."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
