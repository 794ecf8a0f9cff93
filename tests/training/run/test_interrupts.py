import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from glm_jax.training import failures
from glm_jax.training.run.interrupts import SIGNALS, Interrupts, ending_at_once


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted(number, status):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with Interrupts() as interrupts:
        assert (interrupts.received, interrupts.age) == (None, 0)
        os.kill(os.getpid(), number)
        assert interrupts.received == number
    assert interrupts.exit_status == status
    assert interrupts.received_name == number.name
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.fixture
def ended(monkeypatch):
    """What is told to the other processes, and the statuses; the process goes on."""
    calls = []
    monkeypatch.setattr(failures, "listening", lambda: True)
    monkeypatch.setattr(failures, "tell", lambda *words: calls.append(words))
    monkeypatch.setattr(failures, "leave", calls.append)
    return calls


def test_one_of_several_that_reaches_no_save_is_ended_at_the_deadline(ended, capfd):
    with Interrupts(0.2) as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.6)
        assert 0.5 < interrupts.age < 30
    why = (
        "no step ended within 0.2 s of SIGTERM (train.preemption_deadline); the last checkpoint is "
        "whole: the same command goes on"
    )
    assert ended == [(143, why), 143]
    assert f"error: {why}\n" in capfd.readouterr().err


def test_a_save_is_not_cut_short(ended):
    with Interrupts(0.2) as interrupts:
        interrupts.receive(signal.SIGINT, 0.1)
        interrupts.saving()
        time.sleep(0.4)
    with Interrupts(0.2) as interrupts:
        interrupts.receive(signal.SIGINT, 0.1)
    time.sleep(0.4)
    assert ended == []


def test_alone_there_is_no_deadline():
    with Interrupts(0.1) as interrupts:
        interrupts.receive(signal.SIGTERM, 0.0)
        assert interrupts._timer is None


@pytest.mark.processes
def test_a_second_signal_ends_the_process():
    code = (
        "import os, signal; from glm_jax.training.run.interrupts import Interrupts\n"
        "with Interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('second', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "first\n"
    assert done.returncode == 130


# Sleeps inside C, as a compiler would: no handler of Python's runs before it returns.
DEAF = (
    "import hashlib; print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
)


def in_c(context):
    """A process that is inside C, in a context of this module."""
    imports = "import hashlib\nfrom glm_jax.training.run.interrupts import *"
    code = f"{imports}\nwith {context}:\n    {DEAF}\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.processes
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_before_the_first_step_a_signal_ends_the_process_with_a_sentence(number, status):
    process = in_c("ending_at_once()")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == (f"stopped by {number.name} with nothing to save; the same command goes on\n")


@pytest.mark.processes
def test_a_second_signal_ends_a_process_that_is_inside_a_compiler():
    process = in_c("Interrupts()")
    process.send_signal(signal.SIGTERM)
    said = process.stderr.readline()
    assert said == "SIGTERM: saving after this step; a second signal ends at once\n"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_what_was_there_before_comes_back():
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with ending_at_once(), Interrupts():
        assert threading.active_count() == threads + 2
    assert threading.active_count() == threads
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    now = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    assert now == before


@pytest.mark.processes
def test_the_module_is_there_before_jax():
    code = "import sys; from glm_jax.training.run import interrupts; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
