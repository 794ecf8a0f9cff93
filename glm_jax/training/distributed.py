"""Coordination of the processes of a run; the only file that knows how many there are.

    on_first(act, "write the plot")    the first process acts; if that fails, all processes end
    any_of(flag), largest_of(number)   agreement before any process goes on
    gathered([2, 7])                   what every process has, on all of them
    require_same({"text": hash})       all end where one of them has something else
    on_all("name", act, "read it")     each acts; all get what all gave, or all fail

A computation on arrays that are sharded over several processes must be entered by all of them, or
it waits forever. So nothing under `on_first` touches such an array. What fails on one process
anywhere else ends all of them by `glm_jax.training.failures`, beside the collectives.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state  # its client has no public name
from jaxtyping import Int32

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble
from glm_jax.errors import UserError
from glm_jax.sharding.mesh import is_first
from glm_jax.training.failures import FailedElsewhere

T = TypeVar("T")
# Processes that die end the others before; this bounds only how long one may read a disk. ms
_PATIENCE = 24 * 3600 * 1000

# The error that the other processes raise, by the number that is sent, which counts from 1.
_KINDS: tuple[type[Exception], ...] = (UserError, DiskTrouble, FailedElsewhere)


def share() -> tuple[int, int]:
    """The index of this process and the number of processes; (0, 1) for a single process."""
    return jax.process_index(), jax.process_count()


def on_first(act: Callable[[], T], what: str) -> T | None:
    """Calls `act` on the first process; the others wait until it is done.

    Args:
      act: may write files; must not touch an array that is on devices of other processes.
      what: "write the plot", for the message of the other processes if `act` fails.

    Returns:
      What `act` gives, on the first process; None on the others.

    Raises:
      UserError, DiskTrouble, FailedElsewhere: `act` failed. The first process raises its own error,
        the others one of these kinds.
    """
    failure: Exception | None = None
    done: T | None = None
    if is_first():
        try:
            done = act()
        except Exception as error:
            failure = error
    number = largest_of(0 if failure is None else _kind(failure))
    if failure is not None:
        raise failure
    if number:
        raise _KINDS[number - 1](f"the first process could not {what}, and says why")
    return done


def _kind(error: Exception) -> int:
    if isinstance(error, UserError):
        return 1
    return 2 if isinstance(error, DiskTrouble) or disk_trouble(error) is not None else 3


def require_same(values: Mapping[str, str]) -> None:
    """Ends all processes where one has other values; to be called by all, with the same names.

    Raises:
      UserError: on every process; names what differs, and the first process that has it.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    for name, value in sorted(values.items()):
        digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
        digests = np.asarray(multihost_utils.process_allgather(digest))
        differing = np.flatnonzero((digests != digests[0]).any(axis=1))
        if differing.size:
            raise UserError(
                f"{name} is not the same on process {differing[0]} and on process 0; give all "
                "processes the same"
            )


_barriers = itertools.count()


def wait_for_all() -> None:
    """Waits until all processes call this, for as long as it takes.

    Between CPUs the first collective of some devices fails when one process comes 30 s after
    another. So this stands after what may take one of them longer, and before a collective.
    """
    client = global_state.client
    if client is not None:
        client.wait_at_barrier(f"glm_jax/{next(_barriers)}", _PATIENCE)


def any_of(flag: bool) -> bool:
    """Whether `flag` is true on any process; every process gets the same answer."""
    return largest_of(int(flag)) > 0


def largest_of(value: int) -> int:
    """Returns the largest `value` of all processes on every process."""
    return int(gathered([value]).max())


def gathered(values: Sequence[int]) -> Int32[np.ndarray, "processes values"]:
    """The values of every process, on all of them; to be called by all, with as many values."""
    own = np.array(values, np.int32)
    if jax.process_count() == 1:
        return own[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(own))


def on_all(name: str, act: Callable[[], str], what: str) -> list[str]:
    """Calls `act` on every process; returns what all of them gave, in order, on every process.

    Texts travel through the coordinator's table, not through a collective, so a thread beside
    training may call this too. All processes call it as often as each other for one name.

    Args:
      name: of this exchange.
      act: gives a text, of megabytes at most.
      what: "read checkpoint 4", for the message on the other processes if `act` fails on one.

    Raises:
      UserError, DiskTrouble, FailedElsewhere: `act` failed on a process. That one raises its own
        error, the others one of these kinds.
    """
    failure: Exception | None = None
    done = ""
    try:
        done = act()
    except Exception as error:
        failure = error
    kind = 0 if failure is None else _kind(failure)
    answers = [json.loads(text) for text in _exchange(name, json.dumps([kind, done]))]
    if failure is not None:
        raise failure
    for index, (kind, _) in enumerate(answers):
        if kind:
            raise _KINDS[kind - 1](f"process {index} could not {what}, and says why")
    return [text for _, text in answers]


_ROUNDS: Counter[str] = Counter()


def _exchange(name: str, text: str) -> list[str]:
    if jax.process_count() == 1:
        return [text]
    client = global_state.client
    assert client is not None, "several processes without a coordinator"
    _ROUNDS[name] += 1
    folder = f"glm_jax/{name}/{_ROUNDS[name]}/"
    client.key_value_set(f"{folder}{jax.process_index()}", text)
    client.wait_at_barrier(f"{folder}written", _PATIENCE)
    found = dict(client.key_value_dir_get(folder))
    client.wait_at_barrier(f"{folder}read", _PATIENCE)
    if is_first():
        client.key_value_delete(folder)
    return [found[f"{folder}{index}"] for index in range(jax.process_count())]
