"""The parent of a process: it passes on a status and signals, and says why a child was ended."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from glm_jax.errors import UserError
from glm_jax.training import failures
from glm_jax.training.run.watching import LOST, is_child, lost, run_together, watch

# Of jax 0.10.2, shortened.
SILENT = """F1126 client.h:80] Terminating process because the JAX distributed service detected
fatal errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped sending
heartbeats):
/job:jax_worker/replica:0/task:1
The tasks have crashed. Check the task logs"""
FROZEN = """F1126 client.h:80] Terminating process because the JAX distributed service detected
fatal errors. absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded

RPC: /xla.coordination.CoordinationService/Heartbeat"""
CLOSED = "Failed to send RPC to coordination service: UNAVAILABLE: Socket closed"


def child(program):
    return [sys.executable, "-c", textwrap.dedent(program)]


def test_a_status_is_passed_on(capfd):
    assert watch(0, child("import sys; print('said', file=sys.stderr); sys.exit(3)")) == 3
    assert capfd.readouterr().err == "said\n"
    assert watch(0, child("import os; assert 'GLM_JAX_CHILD' in os.environ")) == 0
    assert not is_child()


@pytest.mark.parametrize(
    ("said", "who"),
    [
        (SILENT, "process 1"),
        (CLOSED, "process 0"),
        (FROZEN, "process 0"),
        ("another end", "the runtime ended it"),
    ],
)
def test_who_was_lost_is_named(capfd, said, who):
    program = f"import os, sys; sys.stderr.write({said!r}); sys.stderr.flush(); os.abort()"
    assert watch(2, child(program)) == LOST
    sentence = capfd.readouterr().err.splitlines()[-1]
    assert f"error: process 2 ends: {who}" in sentence
    assert "start the same command again on all" in sentence


def test_several_may_be_lost_and_older_forms_are_read():
    both = "unhealthy (stopped sending heartbeats): 1, 3"
    assert lost(both).startswith("process 1, 3 was lost")


def test_another_end_has_the_status_of_its_signal(capfd):
    assert watch(1, child("import os; os.kill(os.getpid(), 9)")) == 137
    assert "process 1 was ended by SIGKILL" in capfd.readouterr().err


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_child_once(tmp_path, number):
    inner = f"""
        import signal, sys, time
        count = []
        signal.signal({int(number)}, lambda *_: count.append(1))
        open({str(tmp_path / "ready")!r}, "w").close()
        end = time.time() + 20
        while not count and time.time() < end: time.sleep(0.05)
        time.sleep(0.5)
        sys.exit(100 + len(count))
    """
    outer = f"""
        import sys
        from glm_jax.training.run.watching import watch
        sys.exit(watch(0, [sys.executable, "-c", {textwrap.dedent(inner)!r}]))
    """
    parent = subprocess.Popen(child(outer))
    while not (tmp_path / "ready").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(number)
    assert parent.wait(30) == 101


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the child")
def test_a_parent_that_is_killed_leaves_no_child(tmp_path):
    pid = tmp_path / "pid"
    inner = f"""
        import os, time
        from glm_jax.training.run.watching import end_with_parent
        end_with_parent()
        open({str(pid)!r}, "w").write(str(os.getpid()))
        time.sleep(60)
    """
    outer = f"""
        import sys
        from glm_jax.training.run.watching import watch
        watch(0, [sys.executable, "-c", {textwrap.dedent(inner)!r}])
    """
    parent = subprocess.Popen(child(outer))
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
    parent.kill()
    parent.wait(10)
    end = time.time() + 10
    while time.time() < end:
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


@pytest.fixture
def ended(monkeypatch):
    """The statuses that end the process, and what is told to the others."""

    class Ended(Exception):
        pass

    calls = []

    def leave(status):
        calls.append(status)
        raise Ended

    monkeypatch.setattr(failures, "leave", leave)
    monkeypatch.setattr(failures, "tell", lambda *words: calls.append(words))
    calls.append(Ended)
    return calls


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "said", "told"),
    [
        (UserError("no such file"), 2, "error: no such file\n", "no such file"),
        (KeyError("x"), 1, "KeyError: 'x'\n", "KeyError: 'x'"),
        (failures.FailedElsewhere("it failed"), 1, "error: it failed\n", "it failed"),
    ],
)
def test_an_error_of_one_of_several_is_told_and_ends_it_at_once(
    ended, capsys, error, status, said, told
):
    with pytest.raises(ended[0]):
        run_together(raising(error), 50)
    assert ended[1:] == [(status, told), status]
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_connection_that_breaks_leaves_the_word_to_the_runtime(
    ended, monkeypatch, capsys, wrapped
):
    """It ends the process within these seconds, and says who was lost. Orbax, whose restore
    broadcasts, has an error of its own for it."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    error = RuntimeError("UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer")
    if wrapped:
        error, cause = RuntimeError("incompatible handler: PyTreeHandler"), error
        error.__cause__ = cause
    with pytest.raises(ended[0]):
        run_together(raising(error), 20)
    assert (ended[1:], slept) == ([LOST], [35])
    assert capsys.readouterr().err.startswith(
        "error: another process was lost; the last checkpoint"
    )


def test_a_status_of_all_is_given_back_and_another_ends_the_process(ended):
    assert [run_together(lambda s=status: s, 20) for status in (0, 143, 130)] == [0, 143, 130]
    with pytest.raises(ended[0]):
        run_together(lambda: 3, 20)
    assert ended[1:] == [3]
