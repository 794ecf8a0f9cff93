"""A trace of some steps, for TensorBoard's profile page, Perfetto or xprof: `--profile 20:5`."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax

from glm_jax.checks import short
from glm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
    """Steps `first` to `first + count - 1`."""

    first: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "ProfiledSteps":
        """Reads "FIRST:COUNT".

        Raises:
          ValueError: something else, or a number below 1.
        """
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if not match or not int(match[1]) or not int(match[2]):
            raise UserError(
                f"--profile takes FIRST:COUNT, steps from 1 on, such as 20:5; got {short(text)}"
            )
        return cls(int(match[1]), int(match[2]))


class Profiler:
    """Starts and stops the trace at its steps; without steps it does nothing."""

    def __init__(self, steps: ProfiledSteps | None, directory: Path):
        """Args:
        steps: None for no trace.
        directory: made with the trace.
        """
        self._steps, self._directory = steps, directory
        self._running = False

    def before(self, step: int) -> None:
        """Called before a step starts."""
        steps = self._steps
        if steps and not self._running and steps.first <= step < steps.first + steps.count:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, result: Any) -> str | None:
        """Called when a step was started.

        Args:
          step: its number.
          result: what it computes; waited for at the last of the steps.

        Returns:
          Where the trace lies, when it has just ended.
        """
        if not self._running or self._steps is None:
            return None
        if step < self._steps.first + self._steps.count - 1:
            return None
        jax.block_until_ready(result)
        self.close()
        return f"a trace of steps {self._steps.first} to {step} is in {self._directory}"

    def close(self) -> None:
        """Ends a trace that is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
