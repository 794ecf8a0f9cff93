import json

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.reporting import Baseline, baseline_of, report
from glm_jax.evaluation.task_files import read_tasks
from tests.evaluation.models import random_model
from tests.evaluation.test_task_files import CHOICE, LINES, write


@pytest.fixture
def tasks(tmp_path):
    write(tmp_path / "tasks", "t", CHOICE.format(data="d.jsonl"), LINES * 3)
    return read_tasks(tmp_path / "tasks")


def test_a_report_is_printed_and_written_by_its_suffix(tasks, tmp_path, capsys):
    found = report(tasks, random_model, "runs/a")
    found.tell(tmp_path / "a.json")
    found.tell(tmp_path / "a.md")
    shown = capsys.readouterr()
    assert shown.out.startswith("task  examples  metric")
    assert "standard errors of means are s / sqrt(n)\n" in shown.err
    assert json.loads((tmp_path / "a.json").read_text())["checkpoint"] == "runs/a"
    assert (tmp_path / "a.md").read_text().startswith("| task | examples |")


def test_a_model_is_compared_with_another_or_with_its_results(tasks, tmp_path):
    def other():
        return random_model(seed=1)

    alone = report(tasks, other, "runs/b")
    alone.tell(tmp_path / "b.json")
    read = baseline_of(str(tmp_path / "b.json"), tasks)
    assert read.name == "runs/b"
    asked = report(tasks, random_model, "runs/a", Baseline("runs/b"), other)
    again = report(tasks, random_model, "runs/a", read)
    assert asked.cells == again.cells
    assert asked.json == again.json
    assert asked.notes[0] == "baseline: runs/b; checkpoint: runs/a"
    assert asked.json["compared_with"]["tasks"] == alone.json["tasks"]
    before, after = (found.json["tasks"][0]["metrics"] for found in (alone, asked))
    (first, _) = asked.json["differences"]
    assert first["difference"] == pytest.approx(
        after["accuracy"]["value"] - before["accuracy"]["value"]
    )


def test_results_of_other_examples_are_refused_before_a_model_is_asked(tasks, tmp_path):
    report(tasks, random_model, "runs/b").tell(tmp_path / "b.json")
    fewer = read_tasks(tmp_path / "tasks", 2)
    with pytest.raises(UserError, match="the task 't' has 6 and 2"):
        baseline_of(str(tmp_path / "b.json"), fewer)
    with pytest.raises(UserError, match="cannot read"):
        baseline_of(str(tmp_path / "none.json"), tasks)
    assert baseline_of("runs/other", tasks) == Baseline("runs/other")
