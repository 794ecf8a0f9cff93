"""Speed of a run: tokens per second, step times, and the time spent waiting for data."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


class Pace:
    """Measures steps, excluding the time of evaluations, samples and checkpoints.

        step 1    step 2         evaluation   step 3
        |wait|run |wait|  run   |            |wait| run |
             1.0 s       1.4 s                    1.1 s     -> p50 1100 ms

    The time of a step runs from the end of the previous step to its own end; it includes the wait
    for its batch.
    """

    def __init__(self, tokens: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Args:
        tokens: slots of a step's batch, over all hosts.
        clock: returns seconds.
        """
        self._tokens, self._clock = tokens, clock
        self.restart()

    def restart(self) -> None:
        """Discards all measurements."""
        self._seconds: list[float] = []
        self._waited = 0.0
        self._since = self._paused_at = self._began = self._clock()
        self._steps = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context around the wait for a batch."""
        since = self._clock()
        yield
        self._waited += self._clock() - since

    def step_done(self) -> None:
        """Ends the current step and begins the next."""
        now = self._clock()
        self._seconds.append(now - self._since)
        self._since = now
        self._steps += 1

    def pause(self) -> None:
        """Stops the clock."""
        self._paused_at = self._clock()

    def resume(self) -> None:
        """Starts the clock again after `pause`."""
        self._since += self._clock() - self._paused_at

    def seconds_for(self, steps: int) -> float:
        """Estimated seconds for so many steps, with evaluations and checkpoints as so far."""
        return steps * (self._clock() - self._began) / max(self._steps, 1)

    def take(self) -> dict[str, float]:
        """Metrics of the steps since the last call.

        Returns:
          `tokens_per_second`; `time/step_ms_p50`, `_p90` and `_p99`, milliseconds;
          `time/data_stall`, the fraction of the time spent waiting for a batch.
        """
        total = max(sum(self._seconds), 1e-9)
        p50, p90, p99 = np.percentile(np.multiply(self._seconds, 1e3), [50, 90, 99])
        values = {
            "tokens_per_second": self._tokens * len(self._seconds) / total,
            "time/step_ms_p50": float(p50),
            "time/step_ms_p90": float(p90),
            "time/step_ms_p99": float(p99),
            "time/data_stall": min(self._waited / total, 1.0),
        }
        self._seconds, self._waited = [], 0.0
        return values
