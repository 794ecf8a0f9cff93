"""When a start of a run began: with its command, not with its first step.

Used before anything slow is imported, so that imports, joining other hosts and opening the data are
counted.
"""

import time

# When this process's command began, until a run has taken it.
_began: list[int] = []


def process_begins() -> None:
    """To be called by a command first: the time from here on belongs to the run that it starts."""
    _began[:] = [time.monotonic_ns()]


def beginning() -> int:
    """When a run begins that starts now, by `time.monotonic_ns`.

    Returns:
      When the command began, for its first run; now, for others in the same process.
    """
    return _began.pop() if _began else time.monotonic_ns()
