"""SIGTERM and SIGINT ask the loop to save and stop; a second one ends the process at once."""

import signal
from types import FrameType
from typing import Any

import jax
import numpy as np

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Steps between the moments at which several hosts tell each other of signals.
_AGREE_EVERY = 10


class Interrupts:
    """Context in which the two signals are noted instead of obeyed.

    Attributes:
      received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop_after(self, step: int) -> bool:
        """Whether to stop after this step; all hosts get the same answer."""
        if jax.process_count() == 1:
            return self.received is not None
        if step % _AGREE_EVERY:
            return False
        from jax.experimental import multihost_utils

        numbers = multihost_utils.process_allgather(np.int32(self.received or 0))
        if numbers.any():
            self.received = signal.Signals(int(numbers.max()))
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
