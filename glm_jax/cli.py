"""What all commands share: the config arguments, and how a command ends.

Exit statuses: 0 done, 1 failed (a run that diverged, a bug), 2 a mistake in what the user gave,
128 + n stopped by signal n (130 SIGINT, 143 SIGTERM).
"""

import argparse
import glob
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from glm_jax.config import Config
from glm_jax.config_files import load_config
from glm_jax.errors import UserError


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and ends the process with its status.

    A `UserError` becomes one sentence on standard error and status 2; any other exception is a bug
    and keeps its traceback.
    """
    stay_off_absent_tpus()
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader went away (`| head`); nothing is left to be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)


# Device files of TPUs, NVIDIA and AMD GPUs.
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


def stay_off_absent_tpus() -> None:
    """Sets JAX_PLATFORMS to cpu on a machine without accelerators, where the user has not set it.

    With libtpu installed, jax would look for a TPU on the network first, and complain at length.
    """
    if "JAX_PLATFORMS" in os.environ or any(map(glob.glob, _ACCELERATORS)):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:
        # It read the variable when it was imported.
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config FILE` and the repeatable `--set NAME=VALUE`."""
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="a file in configs/ or one like them"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="NAME=VALUE",
        help="change one value, for example model.num_layers=4; may be repeated",
    )


def config_from(args: argparse.Namespace) -> Config:
    """Loads the config that `add_config_arguments` asked for."""
    return load_config(args.config, args.overrides)
