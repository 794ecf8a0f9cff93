"""Files and directories that are written whole or not at all, even where the process is killed.

A link is followed: what it points to is replaced, and the link stays.

Everything that a user finds is written through here, except what only grows (`metrics.jsonl`,
`samples.txt`) and the steps of a checkpoint, which orbax writes.

In a bucket an object is whole by itself; a directory is not, and its last object makes it one.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.remote import as_remote, is_remote

# Files without which a directory is no model: the last ones to be written, the first to be removed.
_MARKS = ("config.json", "run.json")


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Writes a file; text as UTF-8. See `written`."""
    content = content.encode() if isinstance(content, str) else content
    if (remote := as_remote(path)) is not None:
        remote.write_bytes(content)
        return
    with written(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of a file that takes its name when the block ends without an exception.

        with written("loss.png") as temporary:
            figure.savefig(temporary)

    Its content is on the disk before the name changes. So a reader never sees half of it, and
    neither a kill nor a power cut leaves half of it. Its suffix is that of `path`, since writers
    tell formats by it.

    Args:
      path: of the file; its directory must exist.

    Raises:
      OSError: the disk is full or cannot be written; the old content of `path` stays.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        # /dev/null or a pipe: it has no content to keep whole.
        yield path
        return
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


def there(path: Path) -> bool:
    """Whether there is anything of this name, a broken link too."""
    return path.exists() if is_remote(path) else os.path.lexists(path)


def names_below(directory: Path) -> list[str]:
    """The names of all files below a directory, from there, sorted."""
    if (remote := as_remote(directory)) is not None:
        return list(remote.below())
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path.relative_to(directory).as_posix() for path in paths]


def remove_tree(directory: Path) -> None:
    """Removes a directory as far as possible; not being able to is no error."""
    if (remote := as_remote(directory)) is not None:
        with contextlib.suppress(OSError):
            remote.remove_below()
    else:
        shutil.rmtree(directory, ignore_errors=True)


def check_replaceable(path: Path, may_replace: Callable[[Path], bool]) -> None:
    """Refuses a path at which no directory can be written.

    Args:
      path: the directory to be written.
      may_replace: whether the directory there, if not empty, may be replaced.

    Raises:
      UserError: `path` is a file or below one, is a directory that may not be replaced, or holds
        the working directory of this process.
    """
    for one in (path, *path.parents):
        if one.exists() and not one.is_dir():
            raise UserError(f"{str(one)!r} is a file; a model is saved as a directory")
    if not is_remote(path) and path.is_dir() and _holds_working_directory(path):
        raise UserError(
            f"{str(path)!r} is the directory you are in, which cannot be replaced by a new one; "
            "give another one, such as a new directory in it"
        )
    if path.is_dir() and any(path.iterdir()) and not may_replace(path):
        raise UserError(f"{str(path)!r} is not empty and holds more than a model; nothing written")


@contextlib.contextmanager
def replaced_directory(path: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its name when the block ends without an exception.

    All of its content is on the disk by then. The next call on the same host cleans up after a
    killed process:

        NAME    .NAME.new    .NAME.old    killed while
        old     half                      it wrote: the new one is removed
                whole        whole        it renamed: the old one is put back, the new one removed
        new                  half         it removed the old one: that goes on

    Args:
      path, may_replace: as of `check_replaceable`. In a bucket the temporary directory is one of
        this machine, uploaded at the end; killed then, `path` holds no model, or a whole one.

    Raises:
      UserError: as `check_replaceable`.
    """
    if is_remote(path):
        with _uploaded_directory(path, may_replace) as temporary:
            yield temporary
        return
    path = Path(os.path.realpath(path))
    check_replaceable(path, may_replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left_overs(path)
    temporary, old = _sibling(path, "new"), _sibling(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        _sync_all(temporary)
        if path.is_dir():
            path.rename(old)
        temporary.rename(path)
        sync(path.parent)
    finally:
        if old.is_dir() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _uploaded_directory(path: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    check_replaceable(path, may_replace)
    with tempfile.TemporaryDirectory(prefix="glm_jax-") as temporary:
        directory = Path(temporary) / path.name
        directory.mkdir()
        yield directory
        _upload_tree(directory, path)


def _upload_tree(directory: Path, path: Path) -> None:
    """Makes what lies below a path in a bucket what a local directory holds, a model's mark last.

    Raises:
      OSError: the bucket cannot be written.
    """
    remote = as_remote(path)
    assert remote is not None
    names, before = names_below(directory), names_below(path)
    for mark in set(_MARKS) & set(before):
        (remote / mark).unlink(missing_ok=True)
    # Old ones go first: a killed upload must not leave them to be read with the new ones.
    for name in set(before) - set(names) - set(_MARKS):
        (remote / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name in _MARKS):
        (remote / name).upload(directory / name)


@contextlib.contextmanager
def new_directory(path: Path, is_whole: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its name at the end; nothing is replaced.

    Args:
      path: must not exist then, or be empty. Its parents are created.
      is_whole: whether `path` is what another process has written meanwhile; then that is kept.

    Raises:
      OSError: the disk is full or cannot be written, or `path` holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        _sync_all(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not is_whole(path):
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sibling(path: Path, kind: str, pid: int | str = "") -> Path:
    return path.parent / f".{path.name}.{kind}-{socket.gethostname()}-{pid or os.getpid()}"


def _clear_left_overs(path: Path) -> None:
    pattern = re.compile(
        rf"\.{re.escape(path.name)}\.(new|old)-{re.escape(socket.gethostname())}-(\d+)"
    )
    found = filter(None, (pattern.fullmatch(sibling.name) for sibling in path.parent.iterdir()))
    left = [(match[1], match[2]) for match in found if not _is_alive(int(match[2]))]
    # Old ones first: as long as the new one of the same process is there, the old one is whole.
    for kind, pid in sorted(left, reverse=True):
        sibling = _sibling(path, kind, pid)
        if kind == "old" and _sibling(path, "new", pid).is_dir() and not path.exists():
            sibling.rename(path)
        else:
            shutil.rmtree(sibling, ignore_errors=True)


def _sync_all(directory: Path) -> None:
    """Syncs a directory with every file and directory below it."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def _holds_working_directory(path: Path) -> bool:
    try:
        return Path.cwd().resolve().is_relative_to(path.resolve())
    except FileNotFoundError:
        # It was removed meanwhile: nothing can be in it.
        return Path("/").is_relative_to(path.resolve())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
