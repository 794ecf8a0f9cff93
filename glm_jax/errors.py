"""`UserError`, the hints that it offers (a spelling, a command), and warnings logged only once."""

import difflib
import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_SHOWN = 160  # characters of a value that an error repeats


class UserError(ValueError):
    """An error that the user can correct; the message names the value, and says what is allowed.

    Commands print its message and exit with status 2. Any other exception is a bug in this package
    and keeps its traceback.
    """


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it came from: libraries raise errors of their own over others'."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the nearest allowed name, or the empty string.

    >>> did_you_mean("num_layer", ["num_layers", "num_heads"])
    " (did you mean 'num_layers'?)"
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def short(value: object) -> str:
    """The value as an error shows it; an int of thousands of digits has no repr."""
    if isinstance(value, int) and value.bit_length() > 3 * _SHOWN:
        return f"a number of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} ..."


def how_to_install(extra: str) -> str:
    """The shell command that installs an optional extra of this package.

    In a checkout: `.venv/bin/python -m pip install -e '.[tracking]' -c constraints.txt`, with
    absolute paths if the working directory is not the checkout. No registry has this package, so
    installing it by name alone would fail or install something else.
    """
    root = Path(__file__).resolve().parents[1]
    here = Path.cwd() == root
    python = Path(sys.executable)
    if here and python.is_relative_to(root):
        python = python.relative_to(root)
    if not (root / "setup.cfg").is_file():
        return (
            f"{shlex.quote(str(python))} -m pip install 'glm_jax[{extra}] @ WHERE', from where "
            "glm_jax came"
        )
    target = shlex.quote(f"{'.' if here else root}[{extra}]")
    command = f"{shlex.quote(str(python))} -m pip install -e {target}"
    # Beam, of the extra "cache", does not go with the pinned versions.
    if extra != "cache":
        command += f" -c {shlex.quote(os.path.join('' if here else root, 'constraints.txt'))}"
    return command


def say_once(kind: str, message: str) -> None:
    """Logs why something is slower or larger than it could be, once per process and `kind`."""
    if kind not in _SAID:
        _SAID.add(kind)
        logging.getLogger("glm_jax").warning("%s", message)


_SAID: set[str] = set()
