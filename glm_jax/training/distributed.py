"""What several processes of one run do together; the only file that knows how many there are.

    on_first(act, "write the plot")    the first one acts; where that fails, all of them end
    any_of(flag), largest_of(number)   what all must know before any of them goes on

Whoever computes with arrays that lie on the devices of several processes must be joined by all the
others, or it waits for them without end. So nothing under `on_first` touches such an array, and a
failure on one process is agreed on before any of them enters a collective.
"""

from collections.abc import Callable

import jax
import numpy as np

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble
from glm_jax.errors import UserError

# What a failure is on the processes that only hear of it, by the number that travels.
_KINDS: tuple[type[Exception], ...] = (UserError, DiskTrouble, RuntimeError)


def share() -> tuple[int, int]:
    """The number of this process and how many there are; (0, 1) alone."""
    return jax.process_index(), jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def on_first(act: Callable[[], None], what: str) -> None:
    """Lets the first process do something; the others wait until it is done.

    Args:
      act: may write files; touches no array that lies on devices of other processes.
      what: "write the plot", for the sentence of the others where it fails.

    Raises:
      UserError, DiskTrouble, RuntimeError: `act` failed: its own error on the first process, one of
        these kinds on the others.
    """
    failure: Exception | None = None
    if is_first():
        try:
            act()
        except Exception as error:
            failure = error
    number = largest_of(0 if failure is None else _kind(failure))
    if failure is not None:
        raise failure
    if number:
        raise _KINDS[number - 1](f"the first process could not {what}, and says why")


def _kind(error: Exception) -> int:
    if isinstance(error, UserError):
        return 1
    return 2 if isinstance(error, DiskTrouble) or disk_trouble(error) is not None else 3


def from_first(value: int) -> int:
    """The first process's number, on every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(flag: bool) -> bool:
    """Whether it is so on any process; every process gets the same answer."""
    return largest_of(int(flag)) > 0


def largest_of(value: int) -> int:
    """The largest of all processes' numbers, on every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.int32(value)).max())
