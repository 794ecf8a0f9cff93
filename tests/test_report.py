"""The command, on a written log and on a real run that is killed and resumed."""

import json
import subprocess
import sys

import pytest

from glm_jax import cli
from glm_jax.report import main
from glm_jax.training.watch.goodput_log import read_log
from tests.test_train import home, rows_of, start, wait_for_step  # noqa: F401 - two are fixtures
from tests.training.watch.written_log import SPENT, write


@pytest.fixture
def workdir(tmp_path):
    write(tmp_path / "goodput.jsonl")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 4.5, "time/wall": 31.0}\n')
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    return end.value.code


def test_the_table_the_object_and_the_picture(workdir, monkeypatch, capsys):
    assert call(monkeypatch, "--workdir", workdir) == 0
    assert "137.0 s  52.69%  steps that count" in capsys.readouterr().out
    picture = workdir / "goodput.png"
    assert call(monkeypatch, "--workdir", workdir, "--json", "--picture", picture) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == SPENT
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.processes
def test_of_a_run_in_a_bucket(workdir, bucket, monkeypatch, capsys):
    for name in ("goodput.jsonl", "metrics.jsonl"):
        (bucket / "run" / name).upload(workdir / name)
    assert call(monkeypatch, "--workdir", bucket / "run") == 0
    assert "137.0 s  52.69%  steps that count" in capsys.readouterr().out
    assert call(monkeypatch, "--workdir", bucket / "none") == 2
    assert capsys.readouterr().err == f"error: there is no workdir '{bucket / 'none'}'\n"


def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "--workdir", tmp_path / "none") == 2
    assert capsys.readouterr().err == f"error: there is no workdir '{tmp_path / 'none'}'\n"


@pytest.mark.processes
@pytest.mark.nightly
def test_a_run_that_is_killed_and_resumed(start, tmp_path):  # noqa: F811
    workdir = tmp_path / "run"
    changes = ("num_steps=120", "checkpoint_every=20", "eval_every=0", "sample_every=0")
    changes = [f"train.{change}" for change in changes]
    process = start(workdir, *changes)
    wait_for_step(process, workdir, 50, limit=400)
    process.kill()
    process.communicate()
    reached = rows_of(workdir)[-1]["step"]
    alive = read_log(workdir / "goodput.jsonl")[0][-1]
    # No row is of a step that the log does not know; it may know one more.
    assert alive.step in (reached, reached + 1)
    assert alive.status is None
    process = start(workdir, *changes)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    resumed = int(output.partition("goes on after step ")[2].split()[0])
    done = subprocess.run(
        [sys.executable, "-m", "glm_jax.report", "--workdir", workdir, "--json"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    (restart,) = said["restarts"]
    assert (restart["status"], restart["reached_step"]) == ("killed", alive.step)
    assert restart["resumed_after_step"] == resumed
    assert restart["steps_lost"] == alive.step - resumed > 0
    assert 0 < said["seconds"]["lost"] < alive.steps / 1e9
    assert said["seconds"]["down"] > 0
    assert said["seconds"]["starting"] > 1  # two starts, each with its imports
    assert (said["steps"], said["status"], said["damaged_lines"]) == (120, 0, {})
    records, _ = read_log(workdir / "goodput.jsonl")
    wall = records[-1].at - records[0].began
    assert sum(said["seconds"].values()) == pytest.approx(wall / 1e9, abs=1e-6)
    last = [row for row in rows_of(workdir) if "loss" in row][-1]
    assert last["time/lost"] == said["seconds"]["lost"]
    assert last["time/down"] == said["seconds"]["down"]
    parts = [v for n, v in last.items() if n.removeprefix("time/") in said["seconds"]]
    assert sum(parts) == pytest.approx(last["time/wall"], abs=1e-6)
    assert last["goodput"] == pytest.approx(last["time/steps"] / last["time/wall"], abs=1e-9)
