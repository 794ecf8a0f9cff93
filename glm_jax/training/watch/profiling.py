"""A trace of some steps, for TensorBoard's profile page, Perfetto or xprof: `--profile 20:5`."""

import dataclasses
import re
from pathlib import Path

import jax

from glm_jax.errors import UserError, short


@dataclasses.dataclass(frozen=True)
class ProfiledSteps:
    """Steps `first` to `first + count - 1`."""

    first: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "ProfiledSteps":
        """Reads "FIRST:COUNT".

        Raises:
          ValueError: the text has another form, or a number is below 1.
        """
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if not match or not int(match[1]) or not int(match[2]):
            raise UserError(
                f"--profile takes FIRST:COUNT, steps from 1 on, such as 20:5; got {short(text)}"
            )
        return cls(int(match[1]), int(match[2]))


class Profiler:
    """Starts and stops a trace at the given steps; without steps it does nothing."""

    def __init__(self, steps: ProfiledSteps | None, directory: Path):
        """Args:
        steps: None for no trace.
        directory: for the trace; created with it.
        """
        self._steps, self._directory = steps, directory
        self._running = False

    def before(self, step: int) -> None:
        """Called before a step starts."""
        steps = self._steps
        if steps and not self._running and steps.first <= step < steps.first + steps.count:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, result: object) -> str | None:
        """Called after a step was dispatched.

        Args:
          step: its number.
          result: of the step; at the last traced step it is waited for.

        Returns:
          A line that names the trace's directory, if the trace has just ended; else None.
        """
        if not self._running or self._steps is None:
            return None
        if step < self._steps.first + self._steps.count - 1:
            return None
        jax.block_until_ready(result)
        self.close()
        return f"a trace of steps {self._steps.first} to {step} is in {self._directory}"

    def close(self) -> None:
        """Ends the trace if one is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
