import os
import signal
import subprocess
import sys

import pytest

from glm_jax.training.interrupts import Interrupts


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted(number, status):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with Interrupts() as interrupts:
        assert not interrupts.stop_after(1)
        os.kill(os.getpid(), number)
        assert interrupts.stop_after(2)
    assert interrupts.exit_status == status
    assert interrupts.received_name == number.name
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.processes
def test_a_second_signal_ends_the_process():
    code = (
        "import os, signal; from glm_jax.training.interrupts import Interrupts\n"
        "with Interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('second', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "first\n"
    assert done.returncode == -signal.SIGINT
