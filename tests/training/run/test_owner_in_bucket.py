"""A workdir in a bucket has one owner, and one that was killed does not block the next."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from glm_jax.errors import UserError
from glm_jax.training.run import owner_in_bucket
from glm_jax.training.run.claim import Claim
from glm_jax.training.run.owner import OWNER, owned
from glm_jax.training.run.owner_in_bucket import claimed

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(owner_in_bucket, "BEAT", 0.1)
    monkeypatch.setattr(owner_in_bucket, "_LOOK", 2.0)


@pytest.fixture
def path(bucket):
    return bucket / "run" / OWNER


def leave(path, **record):
    """A record that somebody has left."""
    path.write_text(json.dumps({"since": "noon", "beat": 3, **record}))


def ended():
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_record_is_there_changes_and_goes(path):
    with claimed(path):
        first = json.loads(path.read_bytes())
        assert (first["host"], first["pid"]) == (socket.gethostname(), os.getpid())
        deadline = time.monotonic() + 60
        while json.loads(path.read_bytes())["beat"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(path.read_bytes())["beat"] >= 2
    assert not path.exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_second_owner_is_refused(bucket, path, monkeypatch, elsewhere):
    with owned(bucket / "run"):
        if elsewhere:  # as another host sees it
            monkeypatch.setattr(owner_in_bucket, "_is_dead", lambda record: False)
            monkeypatch.setattr(owner_in_bucket, "_HELD", set())
        with (
            pytest.raises(UserError, match=rf"in use by process {os.getpid()} on host"),
            owned(bucket / "run"),
        ):
            pass
    assert not path.exists()
    with owned(bucket / "run"):
        assert path.exists()


def test_a_process_of_this_host_that_has_ended_is_replaced_at_once(path, monkeypatch):
    monkeypatch.setattr(owner_in_bucket, "_watch", None)  # would raise
    leave(path, host=socket.gethostname(), pid=ended())
    with claimed(path):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()


def test_one_of_another_host_is_watched_and_then_replaced(path, capsys):
    leave(path, host="pod-3", pid=1)
    start = time.monotonic()
    with claimed(path):
        assert time.monotonic() - start >= 2.0
        assert json.loads(path.read_bytes())["pid"] == os.getpid()
    assert "was left by process 1 on host pod-3; looking for 2 s" in capsys.readouterr().out


def test_one_that_ends_while_it_is_watched_is_replaced(path):
    leave(path, host="pod-3", pid=1)
    threading.Timer(0.5, path.unlink).start()
    with claimed(path):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()


def test_of_two_that_find_one_dead_one_owns_it(path, monkeypatch):
    """Between what the first reads and what it writes, the second has written."""
    leave(path, host=socket.gethostname(), pid=ended())
    write = Claim.write

    def late(claim, content, generation):
        monkeypatch.setattr(Claim, "write", write)
        leave(path, host="pod-4", pid=8)
        return write(claim, content, generation)

    monkeypatch.setattr(Claim, "write", late)
    with pytest.raises(UserError, match="in use by process 8 on host pod-4"), claimed(path):
        pass
    assert json.loads(path.read_bytes())["host"] == "pod-4"


# Its thread ends by the exception that stands for the end of the process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_owner_that_was_taken_for_dead_ends_at_once(path, monkeypatch, capsys):
    ends = []
    left = threading.Event()

    def end(status):
        ends.append(status)
        left.set()
        raise SystemExit  # the thread's end, in place of the process's

    monkeypatch.setattr(owner_in_bucket.os, "_exit", end)
    with claimed(path):
        leave(path, host="pod-4", pid=8)
        assert left.wait(60)
    assert ends == [2]
    assert "another run has taken 'gs://" in capsys.readouterr().err
    assert json.loads(path.read_bytes())["host"] == "pod-4"


def test_an_outage_in_between_is_survived(path, monkeypatch):
    write, failed = Claim.write, threading.Event()
    with claimed(path):

        def away(claim, content, generation):
            monkeypatch.setattr(Claim, "write", write)
            failed.set()
            raise OSError(5, "away")

        monkeypatch.setattr(Claim, "write", away)
        assert failed.wait(60)
        beat = json.loads(path.read_bytes())["beat"]
        deadline = time.monotonic() + 60
        while json.loads(path.read_bytes())["beat"] == beat and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(path.read_bytes())["beat"] > beat
