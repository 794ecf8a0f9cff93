"""SIGTERM and SIGINT, from a command's first line to its last save.

    imports, data, compiling    nothing to save: prints a sentence and ends the process at once
    steps                       the loop saves and stops (`run.stopping`); a second signal ends the
                                process at once

Python calls a signal handler between two bytecode instructions, so not before a compilation
returns, which may take minutes. A thread therefore listens to the interpreter's wakeup descriptor.
This module is used before jax is imported, so it imports jax only in functions.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from glm_jax.training import failures

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Context in which either signal ends the process with a sentence and status 128 + its number.

    It covers everything before the first step: the main thread may be in an import or a
    compilation, and every file is written whole or not at all.
    """

    def end(received: signal.Signals) -> None:
        _say(f"stopped by {received.name} with nothing to save; the same command goes on")
        failures.tell(128 + received, f"{received.name} before its first step")
        failures.leave(128 + received)

    with _handled(lambda number, frame: None), _heard(end):
        yield


class Interrupts:
    """Context in which the two signals are recorded, and do not end the process.

    One of several processes is ended by a thread if it has not begun to save when the deadline is
    over: inside a collective that never ends, no handler of Python's runs.

    Attributes:
      received: the first signal, or None.
      since: `time.monotonic()` when it came, to whichever process; None before.
    """

    def __init__(self, deadline: float = 25.0) -> None:
        """Args:
        deadline: seconds from a signal to the beginning of the save (`train.preemption_deadline`).
        """
        self.received: signal.Signals | None = None
        self.since: float | None = None
        self._deadline = deadline
        self._stack = contextlib.ExitStack()
        self._count = 0  # signals that the thread received
        self._noted = False  # whether the main thread's handler ran
        self._timer: threading.Timer | None = None
        # A handler may run inside `receive` of its own thread.
        self._lock = threading.RLock()

    def __enter__(self) -> "Interrupts":
        self._stack.callback(self.saving)
        self._stack.enter_context(_handled(self._note))
        self._stack.enter_context(_heard(self._hear))
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler in the main thread; runs at its next bytecode instruction."""
        if self._noted:
            self._end_at_once(signal.Signals(number))
        self._noted = True
        self.receive(signal.Signals(number), 0.0)

    def _hear(self, number: signal.Signals) -> None:
        """Called in the listening thread as soon as a signal arrives."""
        self.receive(number, 0.0)
        self._count += 1
        if self._count == 1:
            _say(f"{number.name}: saving after this step; a second signal ends at once")
        else:
            self._end_at_once(number)

    def _end_at_once(self, number: signal.Signals) -> None:
        failures.tell(128 + number, f"a second signal, {number.name}")
        failures.leave(128 + number)

    def receive(self, number: signal.Signals, age: float) -> None:
        """Takes a signal that came to this process or to another one, `age` seconds ago."""
        with self._lock:
            if self.received is not None:
                return
            self.since = time.monotonic() - age
            self.received = number
            if failures.listening():
                self._timer = threading.Timer(max(self._deadline - age, 0), self._too_late)
                self._timer.daemon = True
                self._timer.start()

    def _too_late(self) -> None:
        assert self.received is not None
        why = (
            f"no step ended within {self._deadline:g} s of {self.received.name} "
            "(train.preemption_deadline); the last checkpoint is whole: the same command goes on"
        )
        _say(f"error: {why}")
        failures.tell(128 + self.received, why)
        failures.leave(128 + self.received)

    def saving(self) -> None:
        """To be called when the save begins, which is not cut short."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def age(self) -> float:
        """Seconds since the signal; 0 without one."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def __exit__(self, *error: object) -> None:
        self._stack.close()

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
def _handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Context in which both signals call `handler` in the main thread."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def _heard(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Context in which both signals call `act` in another thread, whatever the main one does."""
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
    """Prints to standard error, on a new line after a progress bar.

    Python's buffers are bypassed, since the main thread may hold their locks.
    """
    start = "\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{sentence}\n".encode())
