"""Says where the time of a run went: `python -m glm_jax.report --workdir runs/tiny`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.training.watch.report import Report

_MEANING = """Goodput is the share of wall time, since the run first began, that was spent on steps
which count. The rest, by category: compiling, waiting for data, saving (while no step runs),
evaluating, sampling, starting (imports, waiting for other hosts, data, restoring), other; lost
(steps that were done again, since they came after the checkpoint from which the run resumed); down
(from the end of one start to the beginning of the next). They add up to the wall time. Of a run on
several hosts it is the first one's time. What a killed process did in its last seconds counts as
down."""


def main() -> None:
    args = _parser().parse_args()

    from glm_jax.training.watch.report import read_report

    report = read_report(args.workdir)
    if args.picture is not None:
        _draw(report, args.picture)
    print(json.dumps(report.as_dict(), indent=2) if args.json else report.as_text())


def _draw(report: "Report", picture: Path) -> None:
    from glm_jax.training.watch.goodput_plot import plot_goodput

    try:
        plot_goodput(report.history, report.rows, picture)
    except (OSError, ValueError) as error:
        # matplotlib names the formats that it has in a ValueError.
        raise UserError(f"--picture {str(picture)!r} cannot be written: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.report",
        description="Says where the time of a run went, since it first began, restarts included.",
        epilog=_MEANING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=cli.path_or_bucket,
        metavar="DIR",
        help="of the run, as of train; gs://BUCKET/NAME for one in a bucket",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument(
        "--picture",
        type=cli.path,
        metavar="FILE",
        help="also draw the loss and the categories over time into FILE, such as goodput.png",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
