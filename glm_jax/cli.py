"""What all commands share: options, standard input, and how a command ends.

Exit statuses: 0 done, 1 failed (a run that diverged, a bug), 2 a mistake in what the user gave,
128 + n stopped by signal n (130 SIGINT, 141 nobody reads the output any more, 143 SIGTERM).
"""

import argparse
import codecs
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from glm_jax.config import Config
from glm_jax.config_files import load_config
from glm_jax.errors import UserError, did_you_mean, how_to_install
from glm_jax.paths import checkpoint, expanded

# What setup.cfg asks for, as modules; without them nothing runs.
_REQUIRED = {"flax", "grain", "jax", "jaxlib", "matplotlib", "numpy", "optax", "orbax"}
_REQUIRED |= {"safetensors", "sentencepiece", "tqdm"}
_READER_WENT_AWAY = 141  # `| head`; nothing is left to be said to it


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and ends the process with its status.

    A `UserError` becomes one sentence on standard error and status 2, and so does Python without
    the packages of this project; any other exception is a bug and keeps its traceback.
    """
    prepare_streams()
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _REQUIRED:
            raise
        print(f"error: {_without(module)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except SystemExit as end:  # after --help
        status = _flushed(0)
        raise SystemExit(status or end.code) from None
    except BrokenPipeError:
        status = _READER_WENT_AWAY
        _drop_output()
    except OSError:
        # Was it the output? What failed is gone from the buffer, so something must be written.
        try:
            print(flush=True)
        except OSError as error:
            status = _cannot_write(error)
        else:
            raise
    sys.exit(_flushed(status))


def _flushed(status: int) -> int:
    """The status of a command that gave `status`, once its output is out of the buffer."""
    try:
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()
        return _READER_WENT_AWAY
    except OSError as error:
        failed = _cannot_write(error)
        return status or failed


def _cannot_write(error: OSError) -> int:
    print(f"error: cannot write to standard output ({error.strerror})", file=sys.stderr)
    _drop_output()
    return 1


def _drop_output() -> None:
    """Leads what is still in the buffer nowhere; Python tries again at its end, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without(module: str) -> str:
    """What to do where a package of this project is missing."""
    root = Path(__file__).resolve().parents[1]
    python = root / ".venv" / "bin" / "python"
    if not python.is_file() or Path(sys.prefix) == root / ".venv":
        return (
            f"{module} is not installed for {sys.executable}; `make demo` makes an environment "
            f"with it, .venv, or install it with: {how_to_install('tasks')}"
        )
    if Path.cwd() == root:
        python = python.relative_to(root)
    command = Path(sys.argv[0]).stem
    name = "glm_jax" if command in ("__main__", "") else f"glm_jax.{command}"
    return (
        f"{module} is not installed for {sys.executable}; this project has an environment of its "
        f"own: {python} -m {name} ..."
    )


def prepare_streams() -> None:
    """Lets every character be printed, whatever the terminal knows, and a closed stream be used.

    What standard output cannot show is written as an escape: \\\\u5e8a where it takes ASCII only.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # `<&-` and `>&-`
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_input() -> str:
    """All of standard input, as text.

    Raises:
      UserError: it is not in the encoding that is set, which is UTF-8 nearly everywhere.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if buffer is None else _decoded(buffer.read())


def read_line() -> str | None:
    """The next line of standard input without its end, None behind the last; see `read_input`."""
    buffer = getattr(sys.stdin, "buffer", None)
    line = sys.stdin.readline() if buffer is None else _decoded(buffer.readline())
    return line.rstrip("\n") if line else None


def _decoded(data: bytes) -> str:
    encoding = codecs.lookup(sys.stdin.encoding or "utf-8").name
    if encoding in ("utf-8", "ascii"):  # ASCII is part of UTF-8, and texts are more
        encoding = "utf-8-sig"  # Windows begins files with a mark
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not {_plain_name(encoding)}: byte 0x{data[error.start]:02x} at "
            f"{error.start}; convert it first, for example with iconv -f latin1 -t utf-8"
        ) from error


def _plain_name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


def text(argument: str) -> str:
    """Type of an option that is text: what the shell gave, read as UTF-8 where it must be.

    Bytes that the locale has no characters for come as lone surrogates, which no tokenizer takes.
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
    """Type of an option that is a path; `~` is the home directory."""
    if not argument:
        raise argparse.ArgumentTypeError("is empty; a path is wanted")
    return expanded(argument)


def model(argument: str) -> Path:
    """Type of an option that is a model: a `path`, or the word bundled."""
    return checkpoint(argument) if argument else path(argument)


class Parser(argparse.ArgumentParser):
    """A parser of arguments whose mistakes are one sentence, as all mistakes of a user are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says what there is)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return parsed
        odd = unknown[0]
        if odd.startswith("-"):
            name = odd.partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {name}{did_you_mean(name, known)}")
        self.error(f"one argument too many: {odd!r}; a text with spaces is written in quotes")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config FILE` and `--set NAME=VALUE ..`."""
    parser.add_argument(
        "--config",
        required=True,
        type=path,
        metavar="FILE",
        help="a file in configs/ or one like them; it is Python and is run, so use none that you "
        "would not run",
    )
    add_set_argument(parser)


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--set NAME=VALUE ..`, which may come several times."""
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
    """Loads the config that `add_config_arguments` asked for."""
    return load_config(args.config, args.overrides)
