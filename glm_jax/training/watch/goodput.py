"""Goodput: the share of a run's time that was spent on steps which count.

    start 1  |starting|compiling|steps|saving|steps|data|steps X
    down                                                        ......
    start 2                                                           |starting|compiling|steps ..
                                         resumed after the save: the steps behind it are lost

`Goodput` knows at each moment what the process is doing, keeps `goodput.jsonl` up to date, so that
a kill loses seconds at most, and says how the time since the run began was spent.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.training.distributed import is_first, share
from glm_jax.training.watch.goodput_log import CATEGORIES, STEPS, History, Record, read_log

_SECOND = 1_000_000_000
_BEAT = 5.0  # seconds from one update of the log to the next, whatever the process does
# A line is closed after a minute, or this share of the run's time: a log stays short.
_MINUTE, _PARTS = 60 * _SECOND, 500


class Goodput:
    """What one start of a run spends its time on; at each moment one of `CATEGORIES` has it."""

    def __init__(
        self,
        tokens_per_step: int = 0,
        began: int | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], int] = time.time_ns,
    ):
        """The time is "starting" until `turn` or `during` gives it to another category.

        Args:
          tokens_per_step: slots of a batch, over all hosts.
          began: when this start began, by `clock`; None: now.
          clock: nanoseconds of any origin, never going back.
          now: Unix time in nanoseconds.
        """
        self._clock, self._lock = clock, threading.Lock()
        self._since = clock()
        elapsed = 0 if began is None else self._since - began
        self._spent = {**dict.fromkeys(CATEGORIES, 0), "starting": elapsed}
        self._category = "starting"
        self._record = Record(1, now() - elapsed, 0, 0, share()[1], tokens_per_step, {})
        self._past = History([self._record]).nanoseconds
        self._file: int | None = None
        self._offset = self._line_began = self._written = 0

    @contextlib.contextmanager
    def logged(self, path: Path, first_step: int) -> Iterator[None]:
        """Context in which the first process keeps the log up to date.

        Args:
          path: of the log; created if missing. Its earlier starts belong to the run.
          first_step: the step after which this start resumes; 0 for a new run.

        Raises:
          OSError: it cannot be read or written.
        """
        about = dataclasses.replace(self._record, first_step=first_step, step=first_step)
        if not is_first():
            yield
            return
        before = read_log(path)[0] if path.exists() else []
        self._record = dataclasses.replace(about, start=before[-1].start + 1 if before else 1)
        self._past = History([*before, self._record]).nanoseconds
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._offset, self._line_began = _end_of_file(self._file), self._clock()
            self._update()
            with self._beating():
                yield
        except BaseException as error:
            if isinstance(error, UserError):
                self.ends(2)
            elif share()[1] == 1:
                self.ends(1)  # of several, another process may have been lost: status 4
            raise
        finally:
            self._update()
            os.close(self._file)
            self._file = None

    def ends(self, status: int) -> int:
        """Notes the status with which this start ends; returns it."""
        self._record = dataclasses.replace(self._record, status=status)
        return status

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Context in which a thread updates the log, whatever the main one does."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(_BEAT):
                self._update()

        thread = threading.Thread(target=beat, name="goodput", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def during(self, category: str) -> Iterator[None]:
        """Context whose time belongs to a category, but for contexts within it."""
        if category != "waiting_for_data":
            self._update("phase")
        before = self.turn(category)
        try:
            yield
        finally:
            self.turn(before)
            if category != "waiting_for_data":
                # After a save, a line says what counts of the steps if it is resumed from.
                self._update("save" if category == "saving" else "phase")

    def turn(self, category: str) -> str:
        """Gives the time from here on to a category; returns the one that had it."""
        if category not in CATEGORIES:
            raise ValueError(f"no category {category!r}; there are {CATEGORIES}")
        with self._lock:
            self._advance()
            before, self._category = self._category, category
        return before

    def step_done(self, step: int) -> None:
        """To be called after each step, with its number."""
        with self._lock:
            self._record = dataclasses.replace(self._record, step=step)
        if self._clock() - self._written >= _SECOND:
            self._update()

    def nanoseconds(self) -> dict[str, int]:
        """Spent on each category since the run began; the sum is the run's wall time."""
        with self._lock:
            self._advance()
            return {name: past + self._spent.get(name, 0) for name, past in self._past.items()}

    def values(self) -> dict[str, float]:
        """What a row of metrics.jsonl says: `goodput`, and seconds since the run began.

        {"goodput": 0.81, "time/wall": 412.0, "time/steps": 333.7, "time/lost": 9.0, ..}

        The log is brought up to date, so that no row is of a step that it does not know.
        """
        self._update()
        spent = self.nanoseconds()
        wall = sum(spent.values())
        seconds = {f"time/{name}": value / _SECOND for name, value in spent.items()}
        return {"goodput": spent[STEPS] / max(wall, 1), "time/wall": wall / _SECOND} | seconds

    def _advance(self) -> None:
        now = self._clock()
        self._spent[self._category] += now - self._since
        self._since = now

    def _update(self, at: str = "") -> None:
        """Replaces the last line of the log by one of this moment.

        It is closed at a "save", at the edge of a "phase" unless it is very short, and in the end
        anywhere.

        A disk that is full is told of by rows of metrics and by saves, not from here.
        """
        with self._lock:
            if self._file is None:
                return
            self._advance()
            spent = {name: value for name, value in self._spent.items() if value}
            line = dataclasses.replace(self._record, nanoseconds=spent).line()
            with contextlib.suppress(OSError):
                # Never shorter than what it replaces: numbers only grow.
                os.pwrite(self._file, line, self._offset)
                self._written = self._since
                run = sum(self._past.values()) + sum(spent.values())
                least = {"save": 0, "phase": run // _PARTS}.get(at, max(_MINUTE, run // _PARTS))
                if self._since - self._line_began >= least:
                    self._offset += len(line)
                    self._line_began = self._since


def _end_of_file(file: int) -> int:
    """Where the next line begins; ends one that was cut short."""
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        os.pwrite(file, b"\n", size)
        size += 1
    return size
