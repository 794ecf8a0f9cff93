"""The network that options, variables or a cluster ask for; two commands that train together."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glm_jax.errors import UserError
from glm_jax.training.joining import Network, asked, code_digest, detected
from tests.free_port import joining

NAMES = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")


def test_options_and_variables_of_their_names():
    network = Network("a:8476", 4, 3)
    assert asked("a:8476", 4, 3, {}) == network
    assert asked(None, None, None, dict(zip(NAMES, ("a:8476", "4", "3"), strict=True))) == network
    # Options win; a variable of such a name without a coordinator is another program's.
    assert asked("a:8476", 4, 3, {"PROCESS_ID": "1", "COORDINATOR": "b:1"}) == network
    assert asked(None, None, None, {"PROCESS_ID": "1"}) is None
    assert asked(None, None, None, {}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, 1), "--process_id without --coordinator and --num_processes; give all three"),
        (("a:1", 2, None), "--coordinator and --num_processes without --process_id"),
        (("a", 2, 0), "--coordinator must be HOST:PORT; got 'a'"),
        (("a:0", 2, 0), "--coordinator must be HOST:PORT"),
        (("a:1", 0, 0), "--num_processes must be at least 1; got 0"),
        (("a:1", 2, 2), "--process_id must be at most 1; got 2"),
    ],
)
def test_what_cannot_be_joined(given, message):
    with pytest.raises(UserError, match=message):
        asked(*given, {})


def test_variables_that_are_no_numbers():
    values = dict(zip(NAMES, ("a:8476", "four", "3"), strict=True))
    with pytest.raises(UserError, match="NUM_PROCESSES must be a whole number; got 'four'"):
        asked(None, None, None, values)
    with pytest.raises(UserError, match="COORDINATOR without NUM_PROCESSES and PROCESS_ID"):
        asked(None, None, None, {"COORDINATOR": "a:8476"})


def test_a_job_of_slurm_is_detected(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI", "KUBERNETES", "TPU", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    assert detected() is None
    said = {"JOB_ID": "77", "STEP_NODELIST": "node[07-08]", "NTASKS": "2", "PROCID": "1"}
    for name, value in {**said, "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    # jax takes the port from the job's number.
    assert detected() == Network(f"node07:{65536 - 4096 + 77}", 2, 1, (0,))
    # One task a node has all of the node's devices.
    for tasks, local in (("1(x2)", None), ("1,1", None), ("2,1", (0,)), ("2(x2)", (0,))):
        monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
        assert detected().local_device_ids == local
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert detected() is None


def test_other_code_of_the_same_version_has_another_digest(tmp_path):
    """What `join` compares, beside versions and the config."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1\n")
    digests = [code_digest(tmp_path)]
    (tmp_path / "notes.txt").write_text("no code")
    digests.append(code_digest(tmp_path))
    (tmp_path / "part" / "a.py").write_text("x = 2\n")
    digests.append(code_digest(tmp_path))
    (tmp_path / "part" / "a.py").rename(tmp_path / "part" / "b.py")
    digests.append(code_digest(tmp_path))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert code_digest() == code_digest()


@pytest.mark.parametrize(("size", "local"), [("1", None), ("2", (0,))])
def test_a_job_of_open_mpi_is_detected(monkeypatch, size, local):
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI", "KUBERNETES", "TPU", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    uri = "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri)
    for name, value in {"SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "LOCAL_SIZE": size}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    found = detected()
    assert (found.num_processes, found.process_id, found.local_device_ids) == (2, 1, local)


def commands(workdir, processes, *options, devices=2, variables=None):
    """Status, output and errors of `train` on some processes at once."""
    running = start(workdir, processes, *options, devices=devices, variables=variables)
    said = [process.communicate(timeout=400) for process in running]
    return [(process.returncode, *one) for process, one in zip(running, said, strict=True)]


def start(workdir, processes, *options, devices=2, variables=None):
    """`train` on some processes at once, each with options, and variables, of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    flags = environment.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "glm_jax.train", "--config", "configs/demo_cpu.py"]
    changes = {
        "train.num_steps": 4,
        "train.log_every": 1,
        "train.eval_every": 2,
        "train.sample_every": 4,
        "train.eval_batches": 1,
        "train.checkpoint_every": 2,
        "model.num_layers": 2,
        "mesh.data": 2,
        "mesh.fsdp": 2,
    }
    command += [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    command += ["--workdir", str(workdir)]
    running = []
    for index, (joins, extra) in enumerate(zip(joining(len(processes)), processes, strict=True)):
        running.append(
            subprocess.Popen(
                [*command, *joins, *options, *extra],
                env={**environment, **(variables or {}).get(index, {})},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    return running


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row.get("loss", row.get("eval/loss"))) for row in map(json.loads, lines)]


@pytest.mark.nightly
@pytest.mark.processes
def test_two_commands_train_what_one_does(tmp_path):
    """Two processes of two devices each against one of four: losses, samples, checkpoints."""
    both = commands(tmp_path / "two", [[], []])
    assert [status for status, _, _ in both] == [0, 0], both
    for index, (_, _, errors) in enumerate(both):
        assert f"process {index} of 2, 2 of 4 devices here, host " in errors
    assert "done: 4 steps" in both[0][1]
    ((status, _, errors),) = commands(tmp_path / "one", [[]], devices=4)
    assert status == 0, errors
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert [step for step, _ in two] == [step for step, _ in one]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-5)
    samples = [(tmp_path / name / "samples.txt").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]


@pytest.mark.processes
def test_processes_of_different_configs_end_in_one_sentence_each(tmp_path):
    first, second = commands(tmp_path / "run", [[], ["--set", "train.seed=7"]])
    assert first[0] == second[0] == 2
    assert first[2].count("\n") == second[2].count("\n") == 1
    assert "error: train.seed is 7 on process 1 (" in first[2]
    assert "error: process 0 says: train.seed is 7 on process 1 (" in second[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
@pytest.mark.nightly  # the same on forks at each change: tests/training/test_failures.py
def test_a_store_that_one_cannot_write_ends_both_in_one_sentence_each(tmp_path):
    """There is no room for it on process 1; nothing was written, and both have its status."""
    missing = {1: {"GLM_JAX_CACHE": "/proc/nowhere"}}
    first, second = commands(tmp_path / "run", [[], []], variables=missing)
    assert first[0] == second[0] == 2, (first, second)
    said = "cannot write the token store '/proc/nowhere/stores/bundled-"
    assert f"error: {said}" in second[2].splitlines()[-1]
    assert f"error: process 1 has ended the run: {said}" in first[2].splitlines()[-1]
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.processes
@pytest.mark.nightly  # a minute each
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_lost_ends_the_other_and_the_same_command_goes_on(tmp_path, number):
    """Process 1 is killed or frozen midway; process 0 names it, and both are started again.

    The run ends bit-equal to one that nobody disturbed.
    """
    options = ["--lost_after", "10", "--set", "train.num_steps=60", "--set", "train.sample_every=0"]
    options += ["--set", "train.eval_every=0", "--set", "train.checkpoint_every=10"]
    running = start(tmp_path / "run", [[], []], *options)
    manifest = tmp_path / "run" / "checkpoints" / "20" / "manifest.json"
    while not manifest.exists():
        assert all(process.poll() is None for process in running)
        time.sleep(0.1)
    pid = running[1].pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), number)
    began = time.time()
    _, errors = running[0].communicate(timeout=90)
    assert running[0].returncode == 4, errors
    assert "error: process 0 ends: process 1 was lost (killed, frozen or cut off)" in errors
    assert time.time() - began < 60
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(child), signal.SIGKILL)
    running[1].communicate(timeout=90)
    assert [end[0] for end in commands(tmp_path / "run", [[], []], *options)] == [0, 0]
    assert [end[0] for end in commands(tmp_path / "whole", [[], []], *options)] == [0, 0]
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "run")] == [*range(1, 61), 60]
