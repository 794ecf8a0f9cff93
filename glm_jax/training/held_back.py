"""What orbax and asyncio log of a failure that is raised to us all the same.

Each array of a checkpoint is read or written by a task of its own. One full disk, or one damaged
file, is logged by each with its traceback, some when they are collected later on: hundreds of lines
before the sentence that says it.
"""

import contextlib
import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_LOGGERS = ("absl", "asyncio")


class HeldBack(logging.Filter):
    """Context in which records that name a directory wait: said if it succeeds, else dropped."""

    def __init__(self, directory: Path):
        """Args:
        directory: of the checkpoints that are read or written.
        """
        super().__init__()
        self._name = str(directory)
        self._records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by the loggers, in any thread."""
        error = record.exc_info[1] if record.exc_info else None
        if self._name not in f"{record.getMessage()} {error}":
            return True
        self._records.append(record)
        return False

    def __enter__(self) -> "HeldBack":
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
            collect()  # while the filter is there
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)
        for record in self._records if error is None else ():
            logging.getLogger(record.name).handle(record)


def collect() -> None:
    """Collects what a failure left: tasks that nobody asked for their result say so then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        gc.collect()


@contextlib.contextmanager
def no_closed_loops() -> Iterator[None]:
    """Leaves out the tracebacks of reads that end when the loop that waited for them is gone.

    Only where a read is given up because another one failed.
    """
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            before(kind, error, traceback)

    sys.excepthook = hook
    try:
        yield
    finally:
        sys.excepthook = before
