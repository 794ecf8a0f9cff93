"""What fails on one process ends all of them, each with the reason and its status.

    process 1   tell(3, "the disk is full") -> failed/1 on the coordinator; leaves with status 3
    process 0   its thread reads it -> "error: process 1 has ended the run: the disk is full"; 3
                leaves last, since it holds the coordinator

The others are usually inside a collective, which waits in C++ for the process that failed. So they
are told beside the collectives, through the store of keys and values that jax's coordinator keeps,
and a thread ends them. This module imports no jax: signals come before that is imported.
"""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from typing import NoReturn, Protocol

_FAILED, _LEFT = "glm_jax/failed/", "glm_jax/left/"


class FailedElsewhere(RuntimeError):
    """Something failed on another process, which says why; no bug of this one."""


class KeyValues(Protocol):
    """The part of jax's client of the coordinator that is used; it has no public name."""

    def key_value_set(self, key: str, value: str, /) -> None: ...

    def key_value_dir_get(self, prefix: str, /) -> list[tuple[str, str]]: ...


@dataclasses.dataclass(frozen=True)
class Patience:
    """Seconds.

    Attributes:
      look: from one look for failures to the next.
      other: that this process has to end by itself once another has failed; it may have met the
        same, and its own sentence is better.
      own: that it has to end by itself once it has failed.
      last: that process 0 waits for all others to leave.
    """

    look: float = 1.0
    other: float = 5.0
    own: float = 20.0
    last: float = 15.0


class Failures:
    """A thread that ends this process when another one has failed."""

    def __init__(
        self, keys: KeyValues, process: int, num_processes: int, patience: Patience | None = None
    ):
        """Starts the thread.

        Args:
          keys: shared by all processes.
          process, num_processes: which one this is, and how many there are.
          patience: None: seconds that suit a real network.
        """
        self._keys, self._process, self._count = keys, process, num_processes
        self._patience = patience or Patience()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="failures", daemon=True)
        self._thread.start()

    def tell(self, status: int, why: str) -> None:
        """Tells all that this process has failed; only the first time counts."""
        with contextlib.suppress(Exception):  # told before, or the coordinator is gone
            self._keys.key_value_set(f"{_FAILED}{self._process}", json.dumps([status, why]))

    def leave(self, status: int) -> None:
        """Ends this process at once: at a normal exit jax would wait for the others."""
        # In a thread: the main one may hold the locks of these buffers, and wait in C++.
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(2)
        with contextlib.suppress(Exception):
            self._keys.key_value_set(f"{_LEFT}{self._process}", "")
        if self._process == 0:
            self._wait_for_all()
        os._exit(status)

    def stop(self) -> None:
        """Ends the thread; to be called before jax leaves the network."""
        self._stop.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stop.wait(self._patience.look):
            if found := self._read(_FAILED):
                break
        else:
            return
        own = self._process in found
        if self._stop.wait(self._patience.own if own else self._patience.other):
            return
        process = self._process if own else min(found)
        status, why = json.loads(found[process])
        if not own:
            line = f"error: process {process} has ended the run: {why}\n"
            with contextlib.suppress(OSError):
                os.write(2, line.encode())
        self.leave(status)

    def _read(self, prefix: str) -> dict[int, str]:
        try:
            found = self._keys.key_value_dir_get(prefix)
        except Exception:  # the coordinator is gone: the runtime ends this process, and says so
            return {}
        return {int(key.rpartition("/")[2]): value for key, value in found}

    def _wait_for_all(self) -> None:
        end = time.monotonic() + self._patience.last
        while len(self._read(_LEFT)) < self._count and time.monotonic() < end:
            time.sleep(self._patience.look / 5)
        time.sleep(self._patience.look / 5)  # from their word to their end


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


_here: Failures | None = None


def listen(keys: KeyValues, process: int, num_processes: int) -> None:
    """Starts `Failures` for this process; `tell` and `leave` act on it from now on."""
    global _here
    _here = Failures(keys, process, num_processes)


def listening() -> bool:
    """Whether this is one of several processes that end together."""
    return _here is not None


def tell(status: int, why: str) -> None:
    """Tells the other processes, if there are any, that this one ends, with which status and why.

    Each of them ends within seconds. So does this one, whatever its main thread waits for.
    """
    if _here is not None:
        _here.tell(status, why)


def leave(status: int) -> NoReturn:
    """Ends this process at once, without a word to jax; of several, process 0 leaves last."""
    if _here is not None:
        _here.leave(status)
    os._exit(status)


def stop() -> None:
    """Ends the thread that `listen` has started, if there is one."""
    global _here
    if _here is not None:
        _here.stop()
        _here = None
