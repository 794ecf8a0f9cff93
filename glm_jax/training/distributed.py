"""What all processes of a run must know before any of them enters a collective."""

import jax
import numpy as np


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
