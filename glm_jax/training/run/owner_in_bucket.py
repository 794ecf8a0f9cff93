"""The owner of a workdir in a bucket, where there are no locks.

    gs://b/run/.owner    {"host": "pod-3", "pid": 4711, "since": "2026-11-26 00:22:10", "beat": 17}

The record is written only where it still is what was read before (`claim`), so that of several
starts one owns the workdir. One that was left is watched, unless its process was one of this host
and has ended. An owner that was taken for dead, for it was cut off for half a minute, finds that at
its next beat, and ends at once.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from glm_jax.buckets import BucketPath
from glm_jax.training.run.claim import Claim
from glm_jax.training.run.owner_record import (
    BEAT,
    about_this_process,
    content_of,
    in_use,
    parsed,
    say_watching,
)

_LOOK = 30.0  # seconds for which a record that was left is watched
# Records of this very process.
_HELD: set[BucketPath] = set()


@contextlib.contextmanager
def claimed(path: BucketPath) -> Iterator[None]:
    """Context in which this process owns a workdir.

    Args:
      path: of the record, in the workdir.

    Raises:
      UserError: another process owns it, or the bucket cannot be used.
      OSError: the bucket cannot be written.
    """
    claim = Claim(path)
    left = claim.read()
    if path in _HELD:
        raise in_use(path, parsed(left[0]) if left else {})
    if left is not None and not _is_dead(parsed(left[0])):
        left = _watch(path, claim, left)
    about = about_this_process()
    try:
        generation = claim.write(content_of(about, 0), None if left is None else left[1])
    except FileExistsError:
        found = claim.read()
        raise in_use(path, parsed(found[0]) if found else {}) from None
    _HELD.add(path)
    beating = _Beating(path, claim, about, generation)
    try:
        yield
    finally:
        beating.end()
        _HELD.discard(path)


class _Beating:
    """Changes a claimed record every few seconds, until `end`, which removes it."""

    def __init__(self, path: BucketPath, claim: Claim, about: dict[str, object], generation: int):
        self._path, self._claim, self._about = path, claim, about
        self._generation = generation
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the next start finds it, and finds it dead
            self._claim.remove(self._generation)

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(BEAT):
            beat += 1
            try:
                self._generation = self._claim.write(
                    content_of(self._about, beat), self._generation
                )
            except FileExistsError:
                self._leave()
            except OSError:  # an outage is reported by the next save
                continue

    def _leave(self) -> NoReturn:
        """Two that write to one workdir would damage it."""
        print(
            f"error: another run has taken {str(self._path.parent)!r}, since this one was silent "
            "for a while; this one ends at once",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


def _watch(path: BucketPath, claim: Claim, left: tuple[bytes, int]) -> tuple[bytes, int] | None:
    """The record, which may be gone by now; raises if it changes while it is watched."""
    say_watching(path, parsed(left[0]), _LOOK)
    deadline = time.monotonic() + _LOOK
    while time.monotonic() < deadline:
        time.sleep(_LOOK / 20)
        now = claim.read()
        if now is None:
            return None  # its owner is done
        if now[1] != left[1]:
            raise in_use(path, parsed(now[0]))
    return left


def _is_dead(record: dict[str, object]) -> bool:
    """Whether a record is that of a process of this host that has ended."""
    pid = record.get("pid")
    if record.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return pid == os.getpid()  # of an earlier life of this container
