"""Directories that are written whole or not at all, even where the process is killed."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from glm_jax.errors import UserError


def check_replaceable(path: Path, may_replace: Callable[[Path], bool]) -> None:
    """Refuses a place that cannot become a directory of ours.

    Args:
      path: the directory to be written.
      may_replace: whether what lies there, not empty, may be thrown away.

    Raises:
      UserError: `path` is a file, or a directory that may not be replaced.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{str(path)!r} is a file; a model is saved as a directory")
    if path.is_dir() and any(path.iterdir()) and not may_replace(path):
        raise UserError(f"{str(path)!r} is not empty and holds more than a model; nothing written")


@contextlib.contextmanager
def replaced_directory(path: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its name when the block ends without an exception.

    What a killed process left behind (`.NAME.new-HOST-PID`) is removed by the next one on its host.

    Args:
      path, may_replace: as of `check_replaceable`.

    Raises:
      UserError: as `check_replaceable`.
    """
    check_replaceable(path, may_replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_overs(path)
    temporary, old = _sibling(path, "new"), _sibling(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            path.rename(old)
        temporary.rename(path)
    finally:
        if old.is_dir() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _sibling(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{socket.gethostname()}-{os.getpid()}"


def _clear_left_overs(path: Path) -> None:
    pattern = re.compile(
        rf"\.{re.escape(path.name)}\.(new|old)-{re.escape(socket.gethostname())}-(\d+)"
    )
    for sibling in list(path.parent.iterdir()):
        match = pattern.fullmatch(sibling.name)
        if not match or _is_alive(int(match[2])):
            continue
        if match[1] == "old" and not path.exists():
            # Killed between the two renames: what was there before is put back.
            sibling.rename(path)
        else:
            shutil.rmtree(sibling, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
