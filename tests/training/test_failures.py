"""Threads of this process stand for processes; a dict for the coordinator's keys."""

import json
import os
import threading
import time

import pytest

from glm_jax.training import failures
from glm_jax.training.failures import Failures, Patience


class Keys:
    """As jax's client: a key is set once."""

    def __init__(self):
        self.kept, self.gone = {}, False

    def key_value_set(self, key, value):
        if key in self.kept:
            raise RuntimeError("ALREADY_EXISTS")
        self.kept[key] = value

    def key_value_dir_get(self, prefix):
        if self.gone:
            raise RuntimeError("UNAVAILABLE")
        return [pair for pair in list(self.kept.items()) if pair[0].startswith(prefix)]


@pytest.fixture
def ended(monkeypatch):
    """What `os._exit` was called with, and when; the process goes on."""
    calls = []
    monkeypatch.setattr(os, "_exit", lambda status: calls.append((status, time.monotonic())))
    return calls


QUICK = Patience(look=0.02, other=0.1, own=0.1, last=0.3)


def until(held):
    end = time.monotonic() + 20
    while not held():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_failure_of_one_ends_the_others_with_its_status_and_reason(ended, capfd):
    keys = Keys()
    all_three = [Failures(keys, index, 3, QUICK) for index in range(3)]
    all_three[1].tell(3, "the disk is full")
    all_three[1].tell(1, "a second word does not count")
    all_three[1].leave(3)
    until(lambda: len(ended) == 4)  # process 1's thread finds that it has told, too
    assert [status for status, _ in ended] == [3] * 4
    assert capfd.readouterr().err == "error: process 1 has ended the run: the disk is full\n" * 2
    assert json.loads(keys.kept["glm_jax/failed/1"]) == [3, "the disk is full"]


def test_process_0_leaves_last_but_not_never(ended):
    """It holds the coordinator; the runtime would end the others without their sentence."""
    keys = Keys()
    zero, one = (Failures(keys, index, 2, Patience(look=0.02, last=20)) for index in range(2))
    leaving = threading.Thread(target=zero.leave, args=(1,))
    leaving.start()
    time.sleep(0.2)
    assert ended == []
    one.leave(1)
    leaving.join(20)
    assert len(ended) == 2
    zero.stop(), one.stop()
    frozen = Failures(Keys(), 0, 2, QUICK)
    frozen.leave(2)
    assert ended[-1][0] == 2
    frozen.stop()


def test_who_ends_by_itself_is_left_alone(ended, capfd):
    keys = Keys()
    patient = Failures(keys, 1, 2, Patience(look=0.02, other=20))
    keys.key_value_set("glm_jax/failed/0", json.dumps([2, "the same on all"]))
    time.sleep(0.2)
    patient.stop()
    assert ended == []
    assert capfd.readouterr().err == ""


def test_without_a_coordinator_nothing_ends(ended):
    keys = Keys()
    keys.gone = True
    alone = Failures(keys, 1, 2, QUICK)
    keys.key_value_set("glm_jax/failed/0", json.dumps([2, "unheard"]))
    time.sleep(0.2)
    alone.stop()
    assert ended == []


def test_a_single_process_tells_nobody(ended):
    failures.tell(1, "to nobody")
    failures.stop()
    failures.leave(7)
    assert [status for status, _ in ended] == [7]


def test_one_listens_for_a_process(ended, monkeypatch):
    monkeypatch.setattr(failures, "Patience", lambda: QUICK)
    keys = Keys()
    failures.listen(keys, 1, 2)
    failures.tell(3, "mine")
    assert "glm_jax/failed/1" in keys.kept
    failures.leave(3)
    assert "glm_jax/left/1" in keys.kept
    failures.stop()
    failures.tell(3, "unheard")
    assert ended[0][0] == 3
