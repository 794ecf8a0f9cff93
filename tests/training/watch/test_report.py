"""The report of a written log: every figure by arithmetic."""

import json

import pytest

from glm_jax.errors import UserError
from glm_jax.training.watch.goodput_log import ALL
from glm_jax.training.watch.report import MEANINGS, read_report
from tests.training.watch.written_log import RECORDS, SPENT, WALL, write

METRICS = [
    {"step": 1, "loss": 4.5, "time/wall": 31.0},
    {"step": 20, "eval/loss": 3.5},
    {"step": 30, "loss": 2.25, "time/wall": 250.0},
]


@pytest.fixture
def workdir(tmp_path):
    write(tmp_path / "goodput.jsonl")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    return tmp_path


def test_figures_for_programs(workdir):
    said = read_report(workdir).as_dict()
    assert said["seconds"] == SPENT
    assert (said["wall_seconds"], said["goodput"]) == (WALL, 137 / 260)
    assert sum(said["share"].values()) == pytest.approx(1.0, abs=1e-12)
    assert said["restarts"] == [
        {
            "at": 220.0,
            "down_seconds": 15.0,
            "reached_step": 14,
            "status": "killed",
            "resumed_after_step": 10,
            "steps_lost": 4,
            "lost_seconds": 20.0,
            "processes": 2,
        },
        {
            "at": 300.0,
            "down_seconds": 10.0,
            "reached_step": 23,
            "status": 143,
            "resumed_after_step": 23,
            "steps_lost": 0,
            "lost_seconds": 0.0,
            "processes": 1,
        },
    ]
    # 30 steps of 64 tokens.
    assert said["tokens_per_second"] == {"steps": 1920 / 137, "wall": 1920 / 260}
    assert said["loss"] == {
        "first": {"step": 1, "loss": 4.5},
        "last": {"step": 30, "loss": 2.25},
    }
    assert (said["steps"], said["status"], said["damaged_lines"]) == (30, 0, {})
    assert json.loads(json.dumps(said)) == said


def test_the_table(workdir):
    text = read_report(workdir).as_text()
    first, *lines = text.splitlines()
    assert first == (
        "30 steps in 0:04:20, from 1970-01-01 00:01:40 to 1970-01-01 00:06:00 UTC; "
        "its last start: status 0"
    )
    assert "         137.0 s  52.69%  steps that count" in lines
    assert "          20.0 s   7.69%  lost: steps done again" in lines
    assert "          25.0 s   9.62%  down: nothing ran" in lines
    assert "         260.0 s 100.00%  wall time" in lines
    assert lines[lines.index("2 restarts") + 1 :] == [
        "  1970-01-01 00:03:40 UTC  killed at step 14, down 15.0 s, resumed after step 10 on "
        "2 process(es): 4 steps lost, 20.0 s",
        "  1970-01-01 00:05:00 UTC  status 143 at step 23, down 10.0 s, resumed after step 23 on "
        "1 process(es): 0 steps lost, 0.0 s",
        "",
        "tokens/s    14 over steps, 7 over wall time",
        "loss        4.5000 at step 1, 2.2500 at step 30",
    ]
    assert set(MEANINGS) == set(ALL)


def test_damaged_rows_are_skipped_and_counted(workdir):
    for name in ("goodput.jsonl", "metrics.jsonl"):
        with open(workdir / name, "ab") as file:
            file.write(b'\xff\n[]\n{"step": 3, "lo')
    report = read_report(workdir)
    assert report.as_dict()["damaged_lines"] == {"metrics.jsonl": 3, "goodput.jsonl": 3}
    assert report.as_dict()["seconds"] == SPENT
    assert report.as_text().endswith(
        "skipped     3 damaged line(s) of metrics.jsonl\n"
        "skipped     3 damaged line(s) of goodput.jsonl"
    )


def test_a_run_that_is_still_at_its_first_steps(tmp_path):
    write(tmp_path / "goodput.jsonl", RECORDS[:1])
    (tmp_path / "metrics.jsonl").write_text("")
    report = read_report(tmp_path)
    assert report.as_dict()["loss"] == {"first": None, "last": None}
    assert "its last start: runs, or was killed" in report.as_text()
    assert "0 restarts" in report.as_text()


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (None, "there is no workdir '.*nowhere'"),
        ("goodput.jsonl", "has no metrics.jsonl, which glm_jax.train writes"),
        ("metrics.jsonl", "has no goodput.jsonl, which glm_jax.train writes"),
    ],
)
def test_what_is_no_workdir(tmp_path, there, message):
    if there:
        (tmp_path / "nowhere").mkdir()
        (tmp_path / "nowhere" / there).touch()
    with pytest.raises(UserError, match=message):
        read_report(tmp_path / "nowhere")


def test_a_log_without_lines(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "goodput.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"goodput.jsonl' holds no line that glm_jax.train wrote"):
        read_report(tmp_path)
