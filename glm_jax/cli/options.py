"""Options that several commands share, and the types of their values."""

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError, did_you_mean
from glm_jax.paths import adapter_directory, checkpoint, expanded, local


def text(argument: str) -> str:
    """Type of an option that is text, read as UTF-8 if the locale could not decode it.

    Python gives bytes that the locale cannot decode as lone surrogates, which tokenizers refuse.

    Raises:
      argparse.ArgumentTypeError: the bytes are not UTF-8 either.
    """
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from error


def path(argument: str) -> Path:
    """Type of an option that is a path on this machine; `~` is the home directory."""
    return _typed(argument, lambda text: local(text, "this option"))


def path_or_bucket(argument: str) -> Path:
    """Type of an option that is a `path`, or a directory in a bucket: gs://bucket/name."""
    return _typed(argument, expanded)


def adapter(argument: str) -> Path:
    """Type of --adapter: a `path_or_bucket`, or "bundled:aligned"."""
    return _typed(argument, adapter_directory)


def _typed(argument: str, kind: Callable[[str], Path]) -> Path:
    """argparse would hide what a `UserError` says behind the name of a function."""
    if not argument:
        raise argparse.ArgumentTypeError("is empty; give a path")
    try:
        return kind(argument)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive_integer(argument: str) -> int:
    """Type of an option that counts something."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1; got {argument!r}")
    return int(argument)


def positive_number(argument: str) -> float:
    """Type of an option that is a rate or a size; neither 0 nor infinite."""
    try:
        number = float(argument)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {argument!r}")
    return number


def mesh(argument: str) -> MeshConfig:
    """Type of an option that is a mesh of devices: "fsdp=4,tensor=2"; axes not named have size 1.

    Raises:
      argparse.ArgumentTypeError: an axis that there is not, named twice, or a size that is none.
    """
    axes = [field.name for field in dataclasses.fields(MeshConfig)]
    sizes: dict[str, int] = {}
    for part in argument.split(","):
        name, _, size = (one.strip() for one in part.partition("="))
        if name not in axes or name in sizes or not re.fullmatch(r"-?\d+", size):
            raise argparse.ArgumentTypeError(
                f"must be axes with sizes, like fsdp=4,tensor=2, of {', '.join(axes)}; got "
                f"{argument!r}"
            )
        sizes[name] = int(size)
    try:
        return MeshConfig(**(dict.fromkeys(axes, 1) | sizes))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def model(argument: str) -> Path:
    """Type of an option that is a model: a `path`, or the word bundled."""
    return _typed(argument, checkpoint)


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that raises a `UserError`, one sentence, for wrong arguments."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return parsed
        odd = unknown[0]
        if odd.startswith("-"):
            name = odd.partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {name}{did_you_mean(name, known)}")
        self.error(f"one argument too many: {odd!r}; put a text with spaces in quotes")


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--config FILE` and `--set NAME=VALUE ..`."""
    parser.add_argument(
        "--config",
        required=required,
        type=path,
        metavar="FILE",
        help="a file in configs/ or one like them; it is run as Python, so use only files that you "
        "trust",
    )
    add_set_argument(parser)


def add_mesh_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--mesh AXIS=SIZE,..`, for commands that train nothing, and `add_process_arguments`."""
    parser.add_argument(
        "--mesh",
        type=mesh,
        metavar="AXIS=SIZE,..",
        help="devices that share the model, like fsdp=4,tensor=2; -1: all that are left (default: "
        "the first device; of several processes fsdp=-1, all devices of all)",
    )
    add_process_arguments(parser)


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what starts a run on several hosts that no cluster manager knows."""
    group = parser.add_argument_group("several processes")
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens; all others must reach it there",
    )
    group.add_argument("--num_processes", type=int, metavar="N", help="of the whole run")
    group.add_argument(
        "--process_id",
        type=int,
        metavar="I",
        help="of this process, from 0 on; 0 writes",
    )
    group.add_argument(
        "--join_timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="that the last process may take to come; 1800 by default",
    )
    group.add_argument(
        "--lost_after",
        type=float,
        default=50.0,
        metavar="SECONDS",
        help="of silence after which a process is lost, and the others end with status 4; 50 by "
        "default",
    )


def add_adapter_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --adapter, what `glm_jax.load` takes beside the model."""
    parser.add_argument(
        "--adapter",
        type=adapter,
        metavar="DIR",
        help="an adapter of the model: the workdir of a run that tuned it, a LoRA of PEFT, or a "
        "trained prefix, as PEFT or ChatGLM's P-Tuning writes it; of the bundled model "
        "bundled:aligned",
    )


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--set NAME=VALUE ..`, which may be repeated."""
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="NAME=VALUE",
        help="change values of the config, for example model.num_layers=4 train.seed=1; may be "
        "repeated; docs/config.md lists the names",
    )


def config_from(args: argparse.Namespace) -> Config:
    """Loads the config that the options of `add_config_arguments` name."""
    return load_config(args.config, args.overrides)
