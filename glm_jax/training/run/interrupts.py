"""SIGTERM and SIGINT, from a command's first line to its last save.

    imports, data, compiling    nothing is to be saved: a sentence, and the process ends at once
    steps                       the loop saves and stops; a second signal ends the process at once

Python calls its own handlers between two of its instructions, so not before a compiler returns,
which may take minutes. A thread is told of the signals by the interpreter's wakeup descriptor in
the meantime. jax is imported where it is asked for only: this module comes before it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Steps between the moments at which several hosts tell each other of signals.
_AGREE_EVERY = 10


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Context in which either signal ends the process with a sentence and 128 + its number.

    For all that comes before the first step, where the main thread may be in an import or a
    compiler, and where whatever is written is written whole or not at all.
    """

    def end(received: signal.Signals) -> None:
        _say(f"stopped by {received.name} with nothing to save; the same command goes on")
        os._exit(128 + received)

    with _handled(lambda number, frame: None), _heard(end):
        yield


class Interrupts:
    """Context in which the two signals are noted instead of obeyed.

    Attributes:
      received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._stack = contextlib.ExitStack()
        self._count = 0  # heard by the thread
        self._noted = False  # by the main thread

    def __enter__(self) -> "Interrupts":
        self._stack.enter_context(_handled(self._note))
        self._stack.enter_context(_heard(self._hear))
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, once it is at an instruction of Python's."""
        if self._noted:
            os._exit(128 + number)
        self._noted = True
        self.received = self.received or signal.Signals(number)

    def _hear(self, number: signal.Signals) -> None:
        """In the thread, at once."""
        self.received = self.received or number
        self._count += 1
        if self._count == 1:
            _say(f"{number.name}: saving after this step; a second signal ends at once")
        else:
            os._exit(128 + number)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def stop_after(self, step: int) -> bool:
        """Whether to stop after this step; all hosts get the same answer."""
        from glm_jax.training.distributed import largest_of, share

        if share()[1] > 1:
            if step % _AGREE_EVERY:
                return False
            if number := largest_of(self.received or 0):
                self.received = signal.Signals(number)
        return self.received is not None

    @property
    def received_name(self) -> str:
        """SIGTERM or SIGINT."""
        return "" if self.received is None else self.received.name

    @property
    def exit_status(self) -> int:
        """128 + the signal's number: 143 for SIGTERM, 130 for SIGINT."""
        assert self.received is not None
        return 128 + int(self.received)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Both signals call `handler` in the main thread."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def _heard(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Each of the two signals calls `act` in a thread of its own, whatever the main one does."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def listen() -> None:
        while number := os.read(heard, 1):
            if number[0] in SIGNALS:
                act(signal.Signals(number[0]))

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        thread.join()
        os.close(heard)


def _say(sentence: str) -> None:
    """Past Python's buffers, whose locks the main thread may hold; below a progress bar."""
    start = "\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{sentence}\n".encode())
