"""Several processes train what one does, go on in other numbers, and lose one at random moments.

20 times, or GLM_JAX_KILLS times: `GLM_JAX_KILLS=100 make nightly` kills a hundred.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.free_port import joining

pytestmark = [pytest.mark.processes, pytest.mark.nightly]  # minutes each

ROOT = Path(__file__).parents[1]
# Some ten seconds each.
KILLS = int(os.environ.get("GLM_JAX_KILLS", "20"))
COMMON = {
    "model.num_layers": 2,
    "model.embed_dim": 64,
    "data.sequence_length": 64,
    "data.batch_size": 8,
    "train.num_steps": 30,
    "train.log_every": 1,
    "train.eval_every": 10,
    "train.eval_batches": 2,
    "train.sample_every": 15,
    "train.checkpoint_every": 10,
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
}
# So many steps that a run of one process does not end before it is stopped.
LONGER = {"train.num_steps": 90, "train.eval_every": 30, "train.sample_every": 0}
FORMS = {
    "glm": ("configs/demo_cpu.py", {}),
    "longer": ("configs/demo_cpu.py", LONGER),
    "chatglm2": ("configs/tiny_chatglm_cpu.py", {"model.mlp_dim": 128}),
}


def start(workdir, form, processes):
    """`train` on so many processes, eight devices in all; their output is beside the workdir."""
    config, changes = FORMS[form]
    devices = f"--xla_force_host_platform_device_count={8 // processes}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices}
    command = [sys.executable, "-m", "glm_jax.train", "--config", config]
    for name, value in {**COMMON, **changes}.items():
        command += ["--set", f"{name}={value}"]
    command += ["--workdir", str(workdir)]
    running = []
    for index, joins in enumerate(joining(processes)):
        with open(workdir.with_name(f"{workdir.name}_{index}.log"), "a") as log:
            running.append(
                subprocess.Popen(
                    [*command, *joins], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            )
    return running


def logs(workdir):
    return [path.read_text() for path in sorted(workdir.parent.glob(f"{workdir.name}_?.log"))]


def ended(running, workdir):
    statuses = [process.wait(900) for process in running]
    return statuses, logs(workdir)


def rows(workdir, *names):
    """{(step, name): value} of the losses."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        (row["step"], name): value
        for row in map(json.loads, lines)
        for name, value in row.items()
        if name.startswith(("loss", "eval/"))
    }


def whole(directory, form, processes):
    workdir = directory / f"{form}_{processes}"
    statuses, said = ended(start(workdir, form, processes), workdir)
    assert statuses == [0] * processes, said
    return workdir


@pytest.mark.parametrize("form", ["glm", "chatglm2"])
def test_two_processes_of_four_devices_equal_one_of_eight(tmp_path, form):
    """Over 30 steps with evaluations, samples and saves, on data x fsdp x tensor."""
    one, two = (whole(tmp_path, form, processes) for processes in (1, 2))
    ours, theirs = rows(two), rows(one)
    assert [step for step, name in theirs if name == "loss"] == [*range(1, 31)]
    assert [step for step, name in theirs if name == "eval/loss"] == [10, 20, 30]
    assert sorted(ours) == sorted(theirs)
    print(form, "largest difference", max(abs(ours[key] - theirs[key]) for key in theirs))
    assert ours == pytest.approx(theirs, abs=1e-5)
    samples = [(workdir / "samples.txt").read_text() for workdir in (one, two)]
    assert [text.count("step ") for text in samples] == [2, 2]


def test_a_run_goes_on_in_other_numbers_of_processes(tmp_path):
    """Two processes, stopped by SIGTERM to one of them; one alone; then four."""
    workdir = tmp_path / "run"
    for processes, step in ((2, 10), (1, 20)):
        running = start(workdir, "longer", processes)
        manifest = workdir / "checkpoints" / str(step) / "manifest.json"
        while not manifest.exists():
            assert all(process.poll() is None for process in running), logs(workdir)
            time.sleep(0.05)
        running[-1].terminate()
        statuses, said = ended(running, workdir)
        assert statuses == [143] * processes, said
        print(said[0].strip().splitlines()[-1])
    statuses, said = ended(start(workdir, "longer", 4), workdir)
    assert statuses == [0] * 4, said
    ours, theirs = rows(workdir), rows(whole(tmp_path, "longer", 2))
    assert sorted(ours) == sorted(theirs)
    print("largest difference", max(abs(ours[key] - theirs[key]) for key in theirs))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_kills_of_one_of_two_processes_at_random_moments(tmp_path):
    script = ROOT / "tests" / "killed_of_two.py"
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path), str(KILLS), "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == KILLS
    assert told["runs"] >= 1
