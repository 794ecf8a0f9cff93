"""Threads of this process stand for processes; a dict for the coordinator's keys."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

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


# What fails, by its name in failing_together.py: the process, the status of both, and the reason.
FULL = "'a file' cannot be used: No space left on device"
FAILING = {
    "a store that it cannot read": (
        1,
        2,
        "the store 'corpus' cannot be read: Permission denied",
    ),
    "a bad shard of data": (1, 3, "'a shard' cannot be used: Input/output error"),
    "a plot": (0, 1, "ValueError: no such colour"),
    "a workdir of its own": (
        1,
        2,
        "is not seen here; give a workdir on a disk that all hosts share",
    ),
    "a loss that is not finite": (1, 1, "loss nan, gradient norm"),
    "a tracker's disk": (0, 3, FULL),
    "the log's disk": (0, 3, FULL),
    "an evaluation": (1, 1, "MemoryError: no room"),
    "samples": (1, 1, "KeyError: 'id 77'"),
    "the file of frequencies": (0, 3, FULL),
    "the begin of a save": (1, 3, FULL),
    "the end of a save": (1, 3, "checkpoint 2 could not be written: No space left on device"),
    "a restore": (1, 3, "checkpoint 2 cannot be read: Input/output error"),
    "a signal before the first step": (1, 143, "SIGTERM"),
    "a signal that reaches no save": (1, 143, "no step ended within 4 s of SIGTERM"),
}


def check_cases(directory, cases):
    """Both processes of each case end with its status, and with the reason as their last line."""
    script = Path(__file__).with_name("failing_together.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(directory), *cases],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for case in cases:
        failing, status, why = FAILING[case]
        told, logs = found[case], found[case]["logs"]
        assert told["statuses"] == [status, status], (case, logs)
        print(f"{case}: {told['statuses']}, {told['seconds']:.1f} s after it")
        last = [log.strip().splitlines()[-1] for log in logs]
        assert why in last[failing], (case, logs)
        agreed = "error: the first process could not draw loss.png, and says why"
        if last[1 - failing] != agreed:
            assert last[1 - failing].startswith(f"error: process {failing} has ended the run: ")
            assert why in last[1 - failing], (case, logs)


@pytest.mark.processes
def test_two_processes_end_when_one_cannot_read_its_store(tmp_path):
    check_cases(tmp_path, ["a store that it cannot read"])


@pytest.mark.processes
@pytest.mark.nightly  # half a minute each
def test_two_processes_end_whatever_fails_on_one(tmp_path):
    check_cases(tmp_path, list(FAILING)[1:])
