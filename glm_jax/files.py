"""Files and directories that are written whole or not at all, even where the process is killed.

A link is followed: what it points to is replaced, and the link stays.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from glm_jax.errors import UserError


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Writes a file; text as UTF-8. See `written`."""
    with written(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of a file that takes its name when the block ends without an exception.

        with written("loss.png") as temporary:
            figure.savefig(temporary)

    Its content is on the disk before the name changes, so that no reader, no kill and no power cut
    ever leaves half of it. Its suffix is that of `path`, since writers tell formats by it.

    Args:
      path: of the file; its directory must exist.

    Raises:
      OSError: the disk is full or cannot be written; what was there before stays.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network disks cannot do this for a directory.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


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
    path = Path(os.path.realpath(path))
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
