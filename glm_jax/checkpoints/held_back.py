"""Holds back what orbax and asyncio log about failures that they raise as well.

Each array of a checkpoint is read or written by its own task. If the disk is full or a file is
damaged, every task logs its traceback, some only when they are garbage-collected. That would be
hundreds of lines before the one sentence that matters.
"""

import gc
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from glm_jax.checkpoints.disk import disk_trouble

_LOGGERS = ("absl", "asyncio")


class _Raised(logging.Filter):
    """Drops log records of failures that were raised, however late a thread logs them."""

    def __init__(self) -> None:
        super().__init__()
        self._directories: set[Path] = set()

    def add(self, directory: Path) -> None:
        self._directories.add(directory)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)  # adds it only once

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(_is_of(record, directory) for directory in list(self._directories))


_RAISED = _Raised()


class HeldBack(logging.Filter):
    """Context that holds back log records about a directory.

    They are logged at its end if it succeeds, and dropped if it raises.
    """

    def __init__(self, directory: Path):
        """Args:
        directory: of the step that is read or written.
        """
        super().__init__()
        self._directory = directory
        self._records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by the loggers, in any thread."""
        if not _is_of(record, self._directory):
            return True
        self._records.append(record)
        return False

    def __enter__(self) -> "HeldBack":
        _drop_closed_loops()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            _RAISED.add(self._directory)
            collect()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)
        for record in self._records if error is None else ():
            logging.getLogger(record.name).handle(record)


def _is_of(record: logging.LogRecord, directory: Path) -> bool:
    """Whether a record names a step's directory, or its name while it is written.

    An error of the disk may name no file: Python's `write` raises "No space left on device" alone.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError) and error.filename is None and disk_trouble(error):
        return True
    return bool(re.search(rf"{re.escape(str(directory))}(?!\d)", f"{record.getMessage()} {error}"))


def collect() -> None:
    """Collects what a failure left: tasks that nobody asked for their result say so then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        gc.collect()


def _drop_closed_loops() -> None:
    """Drops what tensorstore prints of reads and writes that end after their event loop.

    They were given up because another one failed, and some end long after that was raised: for
    this process's life, then.
    """
    before = sys.unraisablehook
    if isinstance(before, _WithoutClosedLoops):
        return
    sys.unraisablehook = _WithoutClosedLoops(before)


class _WithoutClosedLoops:
    def __init__(self, before: "Callable[[sys.UnraisableHookArgs], object]"):
        self._before = before

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._before(unraisable)
