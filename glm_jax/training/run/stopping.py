"""After which step a run stops: all processes agree on signals, by time, at the same steps.

    step            1  2  3 ...          41               81
    agreement       x  x                 x                x         every few seconds
    SIGTERM to process 1                      x
    all stop after                                        81

An agreement is a collective, so it has to be at the same step everywhere, and clocks differ: each
agreement also settles, by process 0's clock, how many steps there are to the next one.
"""

import signal
import time
from collections.abc import Callable

from glm_jax.training.distributed import gathered, share
from glm_jax.training.run.interrupts import Interrupts

# Seconds from one agreement to the next: a hundred times what one costs, within these limits; the
# upper one is this part of the deadline.
_LEAST = 1.0
_PART = 5
_MOST_STEPS = 1000


class Stopping:
    """Decides, on all processes alike, whether to stop after a step."""

    def __init__(
        self,
        interrupts: Interrupts,
        first: int,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Args:
        interrupts: of this process.
        first: number of steps done before.
        deadline: `train.preemption_deadline`.
        clock: returns seconds.
        """
        self._interrupts, self._clock = interrupts, clock
        self._most = deadline / _PART
        self._last, self._next = first, first + 1
        self._since, self._cost = clock(), 0.0

    def after(self, step: int, finish: Callable[[], object], now: bool = False) -> bool:
        """Whether to stop after this step; every process gets the same answer.

        Args:
          step: its number; all processes call this for each step.
          finish: waits until the step is computed; so a signal that comes meanwhile is seen.
          now: agree after this step in any case; the same on all processes.
        """
        alone = share()[1] == 1
        if alone and self._interrupts.received is not None:
            return self._agreed(True)
        if step < self._next and not now:
            return False
        finish()
        began = self._clock()
        received = self._interrupts.received or 0
        age = min(int(self._interrupts.age * 1000), (1 << 31) - 1)
        found = gathered([received, age, self._steps(step)])
        number = int(found[:, 0].max())
        if number:
            self._interrupts.receive(signal.Signals(number), float(found[:, 1].max()) / 1000)
        self._last, self._next = step, step + int(found[0, 2])
        self._since = self._clock()
        self._cost = self._since - began
        return self._agreed(number > 0)

    def _steps(self, step: int) -> int:
        """Steps to the next agreement, by this process's clock."""
        seconds = (self._clock() - self._since) / max(step - self._last, 1)
        wanted = min(max(_LEAST, 100 * self._cost), self._most)
        return min(max(int(wanted / max(seconds, 1e-6)), 1), _MOST_STEPS)

    def _agreed(self, stopping: bool) -> bool:
        if stopping:
            self._interrupts.saving()
        return stopping
