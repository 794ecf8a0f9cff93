"""Training killed at random moments ends as if nothing had happened, to the last bit.

20 times by `make faults`, which shows the moments; `make nightly` does it 100 times more.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

# Each costs a second of CPU.
KILLS = int(os.environ.get("GLM_JAX_KILLS", "20"))


def kill(directory, kills, seed, *kind):
    """Runs the script; returns what its last line says."""
    script = Path(__file__).with_name("killed_in_forks.py")
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(script),
        str(directory),
        str(kills),
        str(seed),
        *kind,
    ]
    done = subprocess.run(
        command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    print(done.stdout)
    log = directory / "log"
    assert done.returncode == 0, done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.nightly  # a killed run ends as one that was not in tests/test_train.py, at each change
def test_kills_at_random_moments(tmp_path):
    told = kill(tmp_path, KILLS, seed=1)
    assert told["kills"] == KILLS
    assert told["runs"] >= 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["lora", "int4"])
def test_kills_of_runs_that_train_adapters(tmp_path, kind):
    told = kill(tmp_path, KILLS, 3, kind)
    assert told["kills"] == KILLS
    assert told["runs"] >= 1


@pytest.mark.nightly
def test_a_hundred_kills(tmp_path):
    told = kill(tmp_path, 100, seed=2)
    assert told["kills"] == 100
    # Some hit a save, between its first file and its manifest.
    assert told["in_a_save"] > 0
