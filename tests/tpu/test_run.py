"""The supervisor: workers that die, are preempted and end with each status; slices not to be had.

A worker's `ends` has a line for each start of the run: the step that it saves, and how it ends.
"""

import re
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

AT = ("--name", "glm", "--zone", "us-west4-a")
AS = ("--accelerator", "v5e:2x4", "--config", "configs/tiny.py")
FAKE = Path(__file__).parent / "fake"
QUICK = ("--poll", "0", "--pause", "0", "--wait", "1", "--grace", "1")
PATIENT = ("--grace", "30")


@pytest.fixture
def machines(cloud):
    """Slices can be had, and the workdir is on a disk of the network."""
    (cloud.fake / "machines").touch()
    cloud.says("after_create", "ACTIVE")
    return cloud


def plays(cloud, first, second=None):
    """The ends of each worker's runs, the same for both where there is one list."""
    for worker, ends in zip(cloud.workers, (first, second or first), strict=True):
        (worker / "ends").write_text("".join(f"{end}\n" for end in ends))


def supervise(cloud, *options):
    workdir = cloud.fake / "disk" / "run"
    return cloud("run", *AT, *AS, "--workdir", str(workdir), *QUICK, *options)


def verbs(cloud):
    """What gcloud was asked to do, with the command on workers where there is one."""
    found = []
    for call in cloud.calls():
        kind, verb = call.split()[:2]
        if verb == "ssh":
            found.append(re.search(r"worker\.sh ([a-z]+)", call)[1])
        elif verb != "describe":
            found.append(f"{kind.partition('-')[0]} {verb}")
    return found


def count(cloud, *wanted):
    seen = verbs(cloud)
    return [seen.count(one) for one in wanted]


def test_a_run_that_ends_well(machines):
    plays(machines, ["40 0"])
    done = supervise(machines)
    assert (done.returncode, done.stderr) == (0, "")
    assert "done: all workers ended with status 0; the newest checkpoint is step 40" in done.stdout
    assert "the slice glm is left as it is, and costs; tpu/stop.sh --delete" in done.stdout
    assert count(machines, "queued create", "install", "start", "queued delete") == [1, 1, 1, 0]


@pytest.mark.parametrize("end", ["1", "3", "4", "130", "134", "143", "killed"])
def test_what_another_attempt_may_help(machines, end):
    plays(machines, [f"10 {end}", "20 0"])
    done = supervise(machines)
    assert done.returncode == 0, done.stdout
    assert "failure 1 of 5 since step 10 was saved" in done.stdout
    # The same slice: what was set up is not set up again.
    assert count(machines, "queued create", "install", "start") == [1, 1, 2]


def test_status_2_is_not_tried_again(machines):
    plays(machines, ["- 2"])
    done = supervise(machines)
    assert done.returncode == 2
    assert "a further attempt cannot help: the run could not be started, or" in done.stdout
    assert count(machines, "start") == [1]


def test_status_2_of_one_worker_later_on(machines):
    """Worker 1 waits for worker 0 and is stopped."""
    plays(machines, ["5 2"], ["- waits"])
    done = supervise(machines, "--wait", "0")
    assert done.returncode == 2
    assert "a further attempt cannot help: the workers ended: 2 running" in done.stdout
    assert (machines.workers[1] / "signals").read_text() == "SIGTERM\n"


def test_failures_without_progress(machines):
    plays(machines, ["7 1", "7 1", "- 4", "- 1"])
    done = supervise(machines, "--failures", "3")
    assert done.returncode == 1
    assert "given up after 3 failures in a row without a newer checkpoint" in done.stdout
    assert "failure 1 of 3 since step 7" in done.stdout
    assert count(machines, "start", "queued delete") == [3, 0]


@pytest.mark.nightly
def test_progress_is_no_failure(machines):
    plays(machines, ["1 4", "2 4", "3 4", "4 0"])
    done = supervise(machines, "--failures", "2")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("failure 1 of 2") == 3


def test_a_preempted_slice_is_asked_for_again(machines):
    plays(machines, ["10 preempted", "20 preempted", "30 0"])
    done = supervise(machines, "--spot", "--delete", "--", "--network=mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the slice is PREEMPTED; failure 1 of 5") == 2
    assert done.stdout.count("the slice is PREEMPTED, its request ACTIVE; asking again") == 2
    creates = [call for call in machines.calls() if " create " in call]
    assert len(creates) == 3
    assert all(" --spot --network=mine " in call for call in creates)
    assert not (machines.fake / "slice").exists()


def test_a_preempted_slice_is_set_up_again(machines):
    plays(machines, ["10 preempted", "20 0"])
    assert supervise(machines).returncode == 0
    assert count(machines, "queued delete", "install", "start") == [1, 2, 2]


def test_a_slice_that_cannot_be_had(machines):
    (machines.fake / "full").touch()
    done = supervise(machines, "--failures", "3")
    assert done.returncode == 1
    assert done.stdout.count("the slice could not be had; failure ") == 3
    assert done.stderr.count("no more capacity") == 3
    assert count(machines, "queued create", "start") == [3, 0]


def test_a_slice_that_is_had_in_the_end(machines):
    (machines.fake / "refusals").write_text("no\nno\n")
    plays(machines, ["3 0"])
    assert supervise(machines).returncode == 0
    assert count(machines, "queued create", "start") == [3, 1]


def test_a_request_that_failed_is_made_again(machines):
    machines.says("queued", "FAILED")
    plays(machines, ["3 0"])
    assert supervise(machines).returncode == 0
    assert count(machines, "queued delete", "queued create", "start") == [1, 1, 1]


def test_a_worker_that_dies_takes_the_others_along(machines):
    """The other one is given its time, then stopped; both start again."""
    plays(machines, ["10 killed", "20 0"], ["- waits", "- 0"])
    done = supervise(machines)
    assert done.returncode == 0, done.stdout
    assert (machines.workers[1] / "signals").read_text() == "SIGTERM\n"
    assert count(machines, "stop", "start", "queued create") == [1, 2, 1]


@pytest.mark.nightly
def test_a_worker_that_does_not_end_goes_with_its_slice(machines):
    (machines.fake / "stubborn").touch()
    plays(machines, ["10 4", "20 0"], ["- waits", "- 0"])
    done = supervise(machines)
    assert done.returncode == 0, done.stdout
    assert "a worker does not end; deleting its slice" in done.stdout
    assert count(machines, "queued delete", "queued create", "install") == [1, 2, 2]


def test_a_run_that_goes_on_is_taken_up(machines):
    machines.says("queued", "ACTIVE")
    machines.says("slice", "READY")
    assert machines("setup", *AT, *AS[:2]).returncode == 0
    plays(machines, ["- waits"])
    assert machines("train", *AT, *AS[2:], "--workdir", "a", "--wait", "1").returncode == 0
    machines.calls()
    # Stopped from elsewhere: no failure, and not started again.
    (machines.fake / "bucket").write_text("gs://b/run/checkpoints/70/manifest.json\n")
    watching = subprocess.Popen(
        [machines.root / "tpu" / "run.sh", *AT, *AS, "--workdir", "gs://b/run", *QUICK, *PATIENT],
        env=environment(machines),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    while "watching" not in said:
        line = watching.stdout.readline()
        assert line, said
        said += line
    assert machines("stop", *AT).returncode == 0
    said += watching.communicate(timeout=60)[0]
    assert watching.returncode == 1
    assert "a run is going on, step 70 is saved; watching it" in said
    assert "the run was stopped by tpu/stop.sh; the same command resumes it" in said
    calls = (machines.fake / "calls").read_text()
    assert "storage ls gs://b/run/checkpoints/*/manifest.json" in calls
    assert "worker.sh start" not in calls


def environment(cloud):
    path = "/usr/bin:/bin"
    return {"PATH": f"{FAKE}:{path}", "FAKE": str(cloud.fake), "HOME": str(cloud.root.parent)}


def test_it_survives_looks_that_fail(machines):
    """gcloud cannot say how the slice stands, four times; the fifth would have been a failure."""
    machines.says("queued", "ACTIVE")
    machines.says("slice", *["READY"] * 2, *"!!!!", "READY")
    assert machines("setup", *AT, *AS[:2]).returncode == 0
    plays(machines, ["- waits"])
    assert machines("train", *AT, *AS[2:], "--workdir", "a", "--wait", "1").returncode == 0
    done = subprocess.Popen(
        [machines.root / "tpu" / "run.sh", *AT, *AS, "--workdir", "/a", *QUICK, *PATIENT],
        env=environment(machines),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 60
    while (machines.fake / "slice").read_text() != "READY\n":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert machines("stop", *AT).returncode == 0
    said = done.communicate(timeout=60)[0]
    assert "PERMISSION_DENIED" in said
    assert "failure" not in said
    assert done.returncode == 1


def test_a_run_is_not_stopped_for_a_bad_connection(machines):
    """Workers that answer at the fifth try only; then those that never do."""
    machines.says("queued", "ACTIVE")
    machines.says("slice", "READY")
    (machines.fake / "unreachable").write_text("no\n" * 4)
    plays(machines, ["8 0"])
    assert supervise(machines, "--failures", "1").returncode == 0
    (machines.fake / "unreachable").write_text("no\n" * 5)
    done = supervise(machines, "--failures", "1")
    assert done.returncode == 1
    assert "the workers did not answer, five times in a row; failure 1 of 1" in done.stdout


def test_workers_that_do_not_answer(machines):
    machines.says("queued", "ACTIVE")
    machines.says("slice", "READY", "READY", *"!!!!!")
    plays(machines, ["- waits"])
    done = supervise(machines, "--failures", "1")
    assert done.returncode == 1
    assert "the workers did not answer, five times in a row; failure 1 of 1" in done.stdout


def test_a_dry_run_prints_one_attempt(cloud):
    done = cloud("run", *AT, *AS, "--workdir", "/disk/run", "--delete", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert cloud.calls() == []
    lines = [line.split() for line in done.stdout.splitlines()]
    commands = [
        line[line.index("tpus") + 2] if "tpus" in line else line[0]
        for line in lines
        if "describe" not in line and line[0] != "#"
    ]
    assert commands == ["create", "mkdir", "git", "scp", *["ssh"] * 7, "delete", "delete"]
    assert "worker.sh outcome /disk/run" in done.stdout


def test_a_workdir_that_goes_with_its_slice_is_warned_of(cloud):
    done = cloud("run", *AT, *AS, "--workdir", "runs/a", "--spot", "--dry-run")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: a slice that is taken away takes the folder runs/a")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (AS, "--workdir is missing"),
        ((*AS, "--workdir", "/a", "--failures", "0"), "--failures must be at least 1; got 0"),
        (("--workdir", "/a"), "--accelerator (or ACCELERATOR_TYPE) is missing"),
    ],
)
def test_mistakes(cloud, options, sentence):
    done = cloud("run", *AT, *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert cloud.calls() == []


def test_a_mistake_that_another_script_finds(machines):
    done = machines("run", *AT, *AS[:2], "--config", "none.py", "--workdir", "/a", *QUICK)
    assert done.returncode == 2
    assert "error: there is no none.py in" in done.stderr
    assert count(machines, "start") == [0]
