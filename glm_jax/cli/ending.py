"""How a command ends: one sentence for a user's mistake, and its exit status.

0 done; 1 failed (a run that diverged, a bug); 2 a mistake in the user's input; 128 + n stopped by
signal n (130 SIGINT, 141 the reader of the output has gone, 143 SIGTERM).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from glm_jax.cli.streams import prepare_streams
from glm_jax.errors import UserError, how_to_install

# Modules of the packages that setup.cfg requires; without them nothing runs.
_REQUIRED = {"flax", "jax", "jaxlib", "jaxtyping", "matplotlib", "numpy", "optax", "orbax"}
_REQUIRED |= {"safetensors", "sentencepiece", "tqdm"}
_READER_WENT_AWAY = 141  # `| head`: nobody is left to print an error to


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and ends the process with its status.

    A `UserError` becomes one sentence on standard error and status 2, and so does a missing package
    that the project requires. Any other exception is a bug and keeps its traceback.
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
        # Was it standard output? The failed write has emptied its buffer, so try another write.
        try:
            print(flush=True)
        except OSError as error:
            status = _cannot_write(error)
        else:
            raise
    sys.exit(_flushed(status))


def _flushed(status: int) -> int:
    """Flushes standard output; returns `status`, or the status of a failure to write."""
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
    """Sends what is still in the buffer to /dev/null; else Python would fail on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without(module: str) -> str:
    """The message for a missing package: how to install it, or which interpreter has it."""
    root = Path(__file__).resolve().parents[2]
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
