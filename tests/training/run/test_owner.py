import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.training.run import owner
from glm_jax.training.run.owner import OWNER, owned

HOLD = (
    "import sys, time; from pathlib import Path; from glm_jax.training.run.owner import owned\n"
    "with owned(Path(sys.argv[1])):\n"
    "    print('owned', flush=True); time.sleep(600)\n"
)


@pytest.fixture
def hurried(monkeypatch):
    """Beats and looks in milliseconds."""
    monkeypatch.setattr(owner, "BEAT", 0.02)
    monkeypatch.setattr(owner, "_LOOK", 0.4)


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with owned(tmp_path / "a" / "run"):
        record = json.loads((tmp_path / "a" / "run" / OWNER).read_text())
        assert record["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays(tmp_path):
    with owned(tmp_path / "run"):
        (tmp_path / "run" / "run.json").write_text("{}")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_second_one_is_refused_by_name(tmp_path):
    """Locks are of open files, so that one process can stand for two."""
    with owned(tmp_path):
        record = json.loads((tmp_path / OWNER).read_text())
        with pytest.raises(UserError) as refused, owned(tmp_path):
            pass
        said = f"in use by process {os.getpid()} on host {record['host']} since {record['since']}"
        assert said in str(refused.value)
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    with owned(tmp_path):
        pass


def test_a_workdir_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(owner.os, "open", refuse)
    with (
        pytest.raises(UserError, match="cannot be written: Read-only file system"),
        owned(tmp_path),
    ):
        pass


def leave(path, **changes):
    record = {"host": "pod-3", "pid": 7, "since": "2026-01-02 03:04:05", "beat": 3} | changes
    path.write_text(json.dumps(record))


def test_the_record_of_a_killed_owner_here_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "_watch", None)
    leave(tmp_path / OWNER, host=owner.socket.gethostname())
    with owned(tmp_path):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("locks", [True, False])
def test_a_record_that_no_lock_disproves_is_looked_at(
    tmp_path, monkeypatch, hurried, capsys, locks
):
    """Of another host, or on a disk without locks: its owner may live, but then it beats."""

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    if not locks:
        monkeypatch.setattr(owner.fcntl, "flock", no_locks)
    leave(tmp_path / OWNER)
    with owned(tmp_path):
        said = capsys.readouterr().out
        assert "process 7 on host pod-3" in said
        assert ("a disk without locks" in said) is not locks
        if not locks:  # the one above beats, and is seen by the next
            with pytest.raises(UserError, match=f"process {os.getpid()} on"), owned(tmp_path):
                pass


def test_an_owner_elsewhere_that_beats(tmp_path, hurried, monkeypatch):
    leave(tmp_path / OWNER)
    real = owner.time.sleep

    def sleep(seconds):
        real(seconds)
        leave(tmp_path / OWNER, beat=4)

    monkeypatch.setattr(owner.time, "sleep", sleep)
    with pytest.raises(UserError, match="process 7 on host pod-3"), owned(tmp_path):
        pass
    assert json.loads((tmp_path / OWNER).read_text())["beat"] == 4


def test_a_record_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "_watch", None)
    (tmp_path / OWNER).write_bytes(b"\xff{")
    with owned(tmp_path):
        pass


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path, monkeypatch):
    """Between the second's opening and its lock the first one is done and removes the file."""
    real, opened = fcntl.flock, []

    def flock(descriptor, how):
        if not opened:
            (tmp_path / OWNER).unlink()
        opened.append(descriptor)
        return real(descriptor, how)

    monkeypatch.setattr(owner.fcntl, "flock", flock)
    with owned(tmp_path):
        assert len(opened) == 2
        assert (tmp_path / OWNER).exists()


@pytest.mark.processes
def test_a_killed_owner_frees_it(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "owned\n"
        with pytest.raises(UserError, match=f"in use by process {first.pid} on"), owned(tmp_path):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert (tmp_path / OWNER).exists()
    with owned(tmp_path):
        pass
