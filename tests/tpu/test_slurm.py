"""The batch file with stand-ins for srun, scancel and scontrol: what is handed on and requeued."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tpu" / "slurm.sh"
# Of `man sbatch`, those that a job of this kind may have.
DOCUMENTED = {
    *[
        "account",
        "chdir",
        "comment",
        "constraint",
        "cpus-per-task",
        "error",
        "exclude",
        "exclusive",
    ],
    *["export", "gpus", "gpus-per-node", "gpus-per-task", "gres", "job-name", "mail-type", "mem"],
    *["nodelist", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "qos"],
    *["requeue", "reservation", "signal", "time", "time-min"],
}
# Ends as $FAKE/ends says: a line for each start, "STEP STATUS", or "STEP waits" for scancel.
SRUN = """
printf '%s\\n' "$*" >>"$FAKE/srun"
read -r step end <"$FAKE/ends"
sed -i 1d "$FAKE/ends"
saved=run/checkpoints/$step
[ "$step" = - ] || { mkdir -p "$saved" && touch "$saved/manifest.json"; }
[ "$end" = waits ] || exit "$end"
trap 'exit 9' TERM
trap 'exit 143' USR2
echo "$$" >"$FAKE/pid"
while :; do sleep 0.05; done
"""
SCANCEL = """
printf '%s\\n' "$*" >>"$FAKE/scancel"
kill -USR2 "$(cat "$FAKE/pid")"
"""
SCONTROL = """printf '%s\\n' "$*" >>"$FAKE/scontrol"
"""


@pytest.fixture
def job(tmp_path):
    """job(*ends) plays one start; job.start(*ends) does not wait for it."""
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE": str(tmp_path)}
    env |= {"SLURM_JOB_ID": "77", "PYTHON": "py"}

    class Job:
        root = tmp_path

        def start(self, end):
            (tmp_path / "ends").write_text(f"{end}\n")
            command = ["bash", SCRIPT, "--config", "a b.py", "--workdir", "run"]
            return subprocess.Popen(
                command,
                env=env,
                cwd=tmp_path,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # As slurmd starts it: signals to its group are to it and its children.
                start_new_session=True,
            )

        def __call__(self, end):
            process = self.start(end)
            said = process.communicate(timeout=60)[0]
            return process.returncode, said

        def calls(self, name):
            file = tmp_path / name
            return file.read_text().splitlines() if file.exists() else []

    return Job()


def test_its_directives_are_sbatchs():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    lines = SCRIPT.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    # Behind the first command none is read.
    assert all(lines.index(line) < first for line in directives)
    options = dict(re.fullmatch(r"#SBATCH --([a-z-]+)=?(.*)", line).groups() for line in directives)
    assert set(options) <= DOCUMENTED
    assert options["ntasks-per-node"] == "1"
    assert options["open-mode"] == "append"
    assert "requeue" in options
    assert re.fullmatch(r"B:USR1@\d+", options["signal"])


@pytest.mark.parametrize("status", [0, 2])
def test_an_end_that_is_one(job, status):
    assert job(f"40 {status}")[0] == status
    assert job.calls("scontrol") == []
    assert job.calls("srun") == [
        "--kill-on-bad-exit=0 --wait=0 py -m glm_jax.train --config a b.py --workdir run"
    ]


@pytest.mark.parametrize("status", [1, 3, 4, 134, 137, 143])
def test_a_failure_goes_back_to_the_queue(job, status):
    code, said = job(f"40 {status}")
    assert code == status
    assert f"the run ended with status {status} after step 40; back to the queue" in said
    assert job.calls("scontrol") == ["requeue 77"]


def test_failures_without_progress(job):
    ends = ["10 4", "10 1", "- 1", "- 1", "20 4", "- 1", "- 1", "- 1", "- 1"]
    said = [job(end)[1] for end in ends]
    # Step 10 and step 20 each begin the count anew; the fourth failure after a step is the last.
    assert ["given up" in one for one in said] == [False] * 8 + [True]
    assert "4 failures without a newer checkpoint, the last: 1" in said[-1]
    assert len(job.calls("scontrol")) == 8


def wait_for(file):
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_its_time_is_up(job):
    """SLURM signals the script alone; the tasks get SIGTERM once, by scancel."""
    process = job.start("30 waits")
    wait_for(job.root / "pid")
    process.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert job.calls("scancel") == ["--signal=TERM 77"]
    assert job.calls("scontrol") == ["requeue 77"]
    assert "the run ended with status 143 after step 30; back to the queue" in said


def test_a_job_that_is_preempted_or_cancelled(job):
    """SLURM signals the tasks itself, and the script with its group: srun must not be in it."""
    process = job.start("30 waits")
    wait_for(job.root / "pid")
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    assert job.calls("scancel") == []
    os.kill(int((job.root / "pid").read_text()), signal.SIGUSR2)  # the tasks have saved
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert "preempted or cancelled, with status 143" in said
    assert job.calls("scontrol") == []
