"""A workdir has one owner: a second run is refused, but a killed run does not block the next.

    WORKDIR/.owner    {"host": "pod-3", "pid": 4711, "since": "2026-11-26 00:22:10", "beat": 17}

The owner holds a lock of the operating system on the file, which ends with its process, and removes
the file when it is done. On some network disks there are no locks, or locks do not reach other
hosts. The owner therefore also changes `beat` every few seconds. If a lock proves nothing, a record
that was left is watched: if it changes, its owner lives; if it does not change for a while, its
owner is dead.

In a bucket there are no locks at all: the record is written only where it is what was read before
(`glm_jax.training.run.owner_in_bucket`).
"""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from glm_jax.buckets import BucketPath
from glm_jax.checkpoints.disk import reason
from glm_jax.errors import UserError
from glm_jax.training.distributed import any_of, is_first
from glm_jax.training.run.owner_in_bucket import claimed
from glm_jax.training.run.owner_record import (
    BEAT,
    about_this_process,
    content_of,
    in_use,
    parsed,
    say_watching,
)

OWNER = ".owner"
_LOOK = 12.0  # seconds for which a record is watched if the lock proves nothing
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@contextlib.contextmanager
def owned(workdir: Path) -> Iterator[None]:
    """Context in which this run owns `workdir`, which is created if missing.

    Of several processes the first one takes ownership; if it is refused, all are. A directory that
    was created here is removed at the end if it is empty.

    Raises:
      UserError: another run owns it (names host, process and since when), or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        refused = None
        try:
            if is_first():
                if isinstance(workdir, BucketPath):
                    stack.enter_context(claimed(workdir / OWNER))
                else:
                    stack.enter_context(_made(workdir))
                    stack.enter_context(_taken(workdir))
        except UserError as error:
            refused = error
        except OSError as error:
            refused = UserError(f"the workdir {str(workdir)!r} cannot be written: {reason(error)}")
        if any_of(refused is not None):
            raise refused or UserError(
                f"the first process could not take the workdir {str(workdir)!r}, and says why"
            )
        yield


@contextlib.contextmanager
def _made(workdir: Path) -> Iterator[None]:
    missing = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or never made
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def _taken(workdir: Path) -> Iterator[None]:
    path = workdir / OWNER
    descriptor, locks = _lock(path)
    try:
        if not locks:
            print(f"{workdir} lies on a disk without locks: runs see each other by {path} alone")
        left = _record(path)
        if left and not (locks and left.get("host") == socket.gethostname()):
            _watch(path, left)
        stop = threading.Event()
        about = about_this_process()
        _write(descriptor, about, 0)
        thread = threading.Thread(target=_beat, args=(descriptor, about, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            # Under the lock: another process that has opened the file finds that it is gone.
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> tuple[int, bool]:
    """The file descriptor of the record, and whether the disk has locks."""
    while True:
        descriptor, locks = os.open(path, os.O_RDWR | os.O_CREAT, 0o644), True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno not in _NO_LOCKS:
                os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise in_use(path, _record(path, seconds=1.0)) from None
            if error.errno not in _NO_LOCKS:
                raise
            locks = False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor, locks
        os.close(descriptor)  # the previous owner has removed the file


def _record(path: Path, seconds: float = 0.0) -> dict[str, object]:
    """The content of the file, {} if it has none; waits up to `seconds` for it to be written."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if found := parsed(path.read_text(encoding="utf-8")):
                return found
        if time.monotonic() >= deadline:
            return {}
        time.sleep(0.05)


def _watch(path: Path, left: dict[str, object]) -> None:
    """Raises if the record changes while it is watched."""
    say_watching(path, left, _LOOK)
    deadline = time.monotonic() + _LOOK
    while time.monotonic() < deadline:
        time.sleep(_LOOK / 20)
        now = _record(path)
        if now and now != left:
            raise in_use(path, now)


def _beat(descriptor: int, about: dict[str, object], stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(BEAT):
        beat += 1
        with contextlib.suppress(OSError):  # a full disk is reported by the next save
            _write(descriptor, about, beat)


def _write(descriptor: int, about: dict[str, object], beat: int) -> None:
    """Writes in place, since the lock belongs to the file; the record never gets shorter."""
    content = content_of(about, beat)
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))
    with contextlib.suppress(OSError):  # not on every network disk
        os.fsync(descriptor)
