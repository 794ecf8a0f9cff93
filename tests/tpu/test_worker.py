"""Setting up, starting, watching and stopping, the workers being folders and the run a script."""

import subprocess
import time

import pytest

pytestmark = pytest.mark.processes

AT = ("--name", "glm", "--zone", "us-west4-a")
TRAIN = ("--config", "configs/tiny.py", "--workdir", "it's", "--set", "a=*.txt", "--wait", "1")
ARGUMENTS = "<--config><configs/tiny.py><--workdir><it's><--set><a=*.txt>"


@pytest.fixture
def ready(cloud):
    """A slice that is READY and set up."""
    cloud.says("queued", "ACTIVE")
    cloud.says("slice", "READY")
    done = cloud("setup", *AT, "--accelerator", "v5e:2x4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("glm is set up: 8 devices\n")
    cloud.calls()
    return cloud


@pytest.fixture
def training(ready):
    done = ready("train", *AT, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("started on glm; tpu/watch.sh shows how it goes\n")
    ready.calls()
    return ready


def logs(cloud):
    return [(worker / "glm_jax_run" / "log").read_text() for worker in cloud.workers]


def test_setup_copies_what_git_tracks_or_would_track(ready):
    for worker in ready.workers:
        copy = worker / "glm_jax"
        assert (copy / "configs/tiny.py").exists()
        assert not (copy / "runs").exists()
        assert not (worker / "glm_jax.tar.gz").exists()
        assert (
            (worker / "pip")
            .read_text()
            .endswith("--constraint constraints.txt --editable .[tpu]\n")
        )
        assert (worker / "devices").read_text() == "- 8 one\n"
        (copy / "runs").mkdir()
    (ready.root / "configs/new.py").touch()
    (ready.root / "configs/tiny.py").rename(ready.root / "glm_jax/tiny.py")
    subprocess.run(["git", "-C", ready.root, "add", "--all"], check=True)
    assert ready("setup", *AT, "--accelerator", "v5e:2x4").returncode == 0
    for worker in ready.workers:
        copy = worker / "glm_jax"
        assert [path.name for path in (copy / "configs").iterdir()] == ["new.py"]
        assert (copy / "glm_jax/tiny.py").exists()
        assert (copy / "runs").exists()
        assert (copy / ".venv").exists()


def test_setup_can_clone(ready):
    new = ("--repo", f"file://{ready.root}", "--ref", "main")
    assert ready("setup", *AT, "--accelerator", "v5e:2x4", *new).returncode == 0
    for worker in ready.workers:
        assert (worker / "glm_jax" / ".git").exists()
        assert (worker / "glm_jax" / "configs/tiny.py").exists()


def test_setup_counts_devices(ready):
    (ready.fake / "devices_status").write_text("1")
    done = ready("setup", *AT, "--accelerator", "v5p:4x4x4")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: jax does not see the 64 TPU devices of v5p-128 on all workers of glm\n"
    )
    assert (ready.workers[1] / "devices").read_text().splitlines()[-1] == "- 64 several"


def test_nothing_starts_where_nothing_is_set_up(cloud):
    done = cloud("train", *AT, *TRAIN)
    assert done.returncode == 1
    assert "nothing was started: glm has a run already" in done.stderr


def test_train_starts_on_every_worker_once(training):
    for log in logs(training):
        header, arguments = log.splitlines()
        assert header.startswith("== ")
        assert arguments == ARGUMENTS
    done = training("train", *AT, *TRAIN)
    assert done.returncode == 1
    assert "error: nothing was started: glm has a run already" in done.stderr
    assert len(training.calls()) == 1
    assert all(log.count("==") == 1 for log in logs(training))
    assert training("setup", *AT, "--accelerator", "v5e:2x4").returncode == 1


def test_one_busy_worker_keeps_all_from_starting(training):
    first = training.workers[0]
    subprocess.run(["bash", "glm_jax/tpu/worker.sh", "stop", "9"], env=home(first), cwd=first)
    assert training("train", *AT, *TRAIN).returncode == 1
    assert [log.count("==") for log in logs(training)] == [1, 1]


def home(worker):
    return {"HOME": str(worker), "PATH": "/usr/bin:/bin", "FAKE": str(worker.parent)}


def test_a_mistake_of_the_run_is_told_at_once(ready):
    (ready.fake / "train_status").write_text("2")
    done = ready("train", *AT, *TRAIN, "--wait", "30")
    assert done.returncode == 1
    assert "not running; the last run ended with status 2" in done.stdout
    assert done.stdout.count("| error: a mistake\n") == 2
    assert "error: the run did not start on all workers of glm" in done.stderr


def test_watch(training):
    done = training("watch", *AT, "--once", "--lines", "1")
    assert done.returncode == 0
    assert done.stdout.startswith("queued resource: ACTIVE\nslice: READY\n")
    assert done.stdout.count(": running, pid ") == 2
    assert done.stdout.count(f"| {ARGUMENTS}\n") == 2
    training.says("slice", "PREEMPTED")
    done = training("watch", *AT)
    assert (done.returncode, done.stdout.splitlines()[1]) == (1, "slice: PREEMPTED")


def test_watch_follows_until_the_end(training):
    watch = subprocess.Popen(
        ["bash", "glm_jax/tpu/worker.sh", "follow", "1"],
        env=home(training.workers[0]),
        cwd=training.workers[0],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ": running, pid " in watch.stdout.readline()
    assert watch.stdout.readline().endswith(f"| {ARGUMENTS}\n")
    assert training("stop", *AT).returncode == 0
    rest = watch.communicate(timeout=20)[0].splitlines()
    assert rest[:3] == ["1/9", "2/9", "saved"]
    assert rest[-1].endswith(": not running; the last run ended with status 143")


def test_stop_lets_the_run_save_and_may_be_repeated(training):
    for said in ("ended with status 143", "ended with status 143"):
        done = training("stop", *AT)
        assert done.returncode == 0
        assert done.stdout.count(said) == 2
        assert done.stdout.count("| saved\n") == 2
        assert "/9" not in done.stdout
    assert [log.splitlines()[-1] for log in logs(training)] == ["saved", "saved"]
    assert [(worker / "signals").read_text() for worker in training.workers] == ["SIGTERM\n"] * 2
    assert training("train", *AT, *TRAIN).returncode == 0
    assert [log.count("==") for log in logs(training)] == [2, 2]


def test_a_run_that_does_not_end_gets_one_signal_and_keeps_its_slice(training):
    (training.fake / "stubborn").touch()
    for _ in range(2):
        done = training("stop", *AT, "--wait", "1", "--delete")
        assert done.returncode == 1
        assert "error: the run did not end on all workers of glm" in done.stderr
    assert [(worker / "signals").read_text() for worker in training.workers] == ["SIGTERM\n"] * 2
    assert not [call for call in training.calls() if "delete" in call]


def test_a_stale_pid_is_no_run(training):
    training("stop", *AT)
    for worker in training.workers:
        (worker / "glm_jax_run" / "pid").write_text("1")
    assert training("stop", *AT).returncode == 0
    assert training("train", *AT, *TRAIN).returncode == 0


def test_a_killed_run_is_not_running(training):
    for worker in training.workers:
        pid = (worker / "glm_jax_run" / "pid").read_text().strip()
        subprocess.run(["kill", "-KILL", pid], check=True)
    time.sleep(0.5)
    done = training("watch", *AT, "--once")
    assert done.stdout.count("not running; the last run ended with status 137") == 2


def test_delete(training):
    done = training("stop", *AT, "--delete", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing is left of glm")
    assert training.calls()[-1] == ("queued-resources delete glm --force --quiet --zone=us-west4-a")
    assert "saved" in logs(training)[0]
    (training.fake / "slice").unlink()
    done = training("stop", *AT, "--delete")
    assert done.returncode == 0
    assert "there is no run to stop: the slice glm is not there" in done.stdout
    assert not [call for call in training.calls() if "delete" in call or "ssh" in call]


@pytest.mark.parametrize(
    ("queued", "state", "expected"),
    [
        (None, "READY", "tpu-vm delete glm --zone=us-west4-a"),
        (None, "PREEMPTED", "tpu-vm delete glm --zone=us-west4-a"),
        ("SUSPENDED", None, "queued-resources delete glm --force --zone=us-west4-a"),
        ("WAITING_FOR_RESOURCES", None, "queued-resources delete glm --force --zone=us-west4-a"),
    ],
)
def test_delete_what_is_there(cloud, queued, state, expected):
    for what, line in (("queued", queued), ("slice", state)):
        if line:
            cloud.says(what, line)
    assert cloud("stop", *AT, "--delete").returncode == 0
    deleted = [call for call in cloud.calls() if call.split()[1] == "delete"]
    assert deleted == [expected]
