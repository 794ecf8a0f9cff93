"""In one process; test_loop.py and test_checkpoints.py have two."""

import errno

import numpy as np
import pytest
from jax._src import distributed as runtime
from jax.experimental import multihost_utils

from glm_jax.checkpoints.disk import DiskTrouble
from glm_jax.errors import UserError
from glm_jax.training import distributed
from glm_jax.training.distributed import (
    any_of,
    gathered,
    is_first,
    largest_of,
    on_all,
    on_first,
    require_same,
    share,
)
from glm_jax.training.failures import FailedElsewhere


def test_alone_each_has_its_own_answer():
    assert largest_of(3) == 3
    assert any_of(True) is True
    assert any_of(False) is False
    assert gathered([2, 7]).tolist() == [[2, 7]]


@pytest.mark.parametrize(("others", "largest"), [([0, 0], 0), ([0, 15], 15)])
def test_of_several_the_largest(monkeypatch, others, largest):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        multihost_utils, "process_allgather", lambda value: np.array(others)[:, None]
    )
    assert largest_of(0) == largest
    assert any_of(False) is (largest > 0)


def test_what_differs_is_named_on_all(monkeypatch):
    require_same({"the text": "alone"})
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 3)
    asked = []

    def gather(digest):
        """Process 2 has another "b", the second that is asked for."""
        asked.append(digest)
        return np.stack([digest, digest, digest + (len(asked) == 2)])

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    with pytest.raises(UserError, match="b is not the same on process 2 and on process 0"):
        require_same({"b": "1", "a": "1"})
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda digest: np.stack([digest] * 3))
    require_same({"b": "1", "a": "1"})


def test_the_first_process_acts_and_its_error_is_raised():
    assert (share(), is_first()) == ((0, 1), True)
    done = []
    on_first(lambda: done.append(1), "act")
    assert done == [1]
    with pytest.raises(KeyError, match="mine"):
        on_first(lambda: {}["mine"], "look")


@pytest.mark.parametrize(
    ("number", "kind"), [(1, UserError), (2, DiskTrouble), (3, FailedElsewhere)]
)
def test_the_others_do_not_act_and_hear_of_its_failure(monkeypatch, number, kind):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: np.array([[number], own]))
    with pytest.raises(kind, match="the first process could not write it, and says why"):
        on_first(lambda: pytest.fail("acted"), "write it")


def test_what_failed_is_told_by_its_kind():
    full = OSError(28, "No space left on device")
    assert [distributed._kind(e) for e in (UserError("x"), full, ValueError())] == [1, 2, 3]


class Table:
    """Stands for the coordinator's table; process 1 has put `answer` into it."""

    def __init__(self, answer):
        self.answer, self.set, self.deleted, self.met = answer, {}, [], []

    def key_value_set(self, key, value):
        self.set[key] = value

    def wait_at_barrier(self, key, milliseconds):
        self.met.append(key)

    def key_value_dir_get(self, folder):
        return [*self.set.items(), (f"{folder}1", self.answer)]

    def key_value_delete(self, folder):
        self.deleted.append(folder)


def two_processes(monkeypatch, answer):
    table = Table(answer)
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(runtime.global_state, "client", table)
    return table


def test_all_get_what_all_gave(monkeypatch):
    assert on_all("sums", lambda: "mine", "act") == ["mine"]
    table = two_processes(monkeypatch, '[0, "theirs"]')
    for _ in range(2):
        assert on_all("sums", lambda: "mine", "act") == ["mine", "theirs"]
    # Each exchange has keys of its own, which are removed when all have read.
    assert len(set(table.met)) == 4
    assert len(set(table.deleted)) == 2


def test_what_fails_on_one_fails_on_all(monkeypatch):
    def fail():
        raise OSError(errno.EIO, "mine")

    two_processes(monkeypatch, '[2, ""]')
    with pytest.raises(DiskTrouble, match="process 1 could not act, and says why"):
        on_all("sums", lambda: "mine", "act")
    table = two_processes(monkeypatch, '[0, ""]')
    with pytest.raises(OSError, match="mine"):
        on_all("sums", fail, "act")
    assert list(table.set.values()) == ['[2, ""]']
