import json
import math

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.asked import Outcome, hit
from glm_jax.evaluation.results import (
    Result,
    Shown,
    aligned,
    as_json,
    as_markdown,
    as_table,
    notes,
    prompts_of,
    read_results,
    result_of,
    run_tasks,
    write_json,
)
from glm_jax.evaluation.task_files import read_tasks
from tests.evaluation.models import Oracle, random_model
from tests.evaluation.test_task_files import CHOICE, write


def result(hits, task="reviews", cut=0):
    shown = [Shown("a prompt", "this", "that") for _ in hits]
    rows = np.stack([hit(bool(one)) for one in hits])
    return Result(task, "choice", "f" * 64, cut, {"accuracy": rows}, {}, shown)


def test_a_table_with_its_errors():
    cells = as_table([result([1, 1, 1, 0]), result([1], "one")])
    assert cells[1] == ["reviews", "4", "accuracy", "0.75", "0.25"]
    assert cells[2] == ["one", "1", "accuracy", "1", "-"]
    assert aligned(cells).splitlines()[:2] == [
        "task     examples  metric    value  standard error",
        "reviews         4  accuracy   0.75            0.25",
    ]
    text = as_markdown(cells, ["standard errors of means are s / sqrt(n)"])
    assert text.startswith("| task | examples | metric | value | standard error |\n| --- | --- |")
    assert text.endswith("\n\nStandard errors of means are s / sqrt(n).\n")


def test_notes_say_what_was_cut_and_how_errors_were_found():
    found = notes([result([1, 0], cut=2)])
    assert found[0] == "standard errors of means are s / sqrt(n)"
    assert found[1].startswith("reviews: 2 of 2 prompts did not fit")
    rows = {"perplexity": np.array([[2.0, 1.0], [3.0, 2.0]])}
    other = Result("w", "perplexity", "", 0, rows, {"perplexity": "signed"}, [])
    assert notes([other])[0].endswith("bootstrap over examples, 2000 resamples, seed 0")
    assert notes([other])[1] == "signed"


def test_json_holds_all_and_is_read_again(tmp_path):
    one = result([1, 0, 1])
    found = as_json("runs/a", [one])
    path = tmp_path / "a.json"
    path.write_text(write_json(found))
    (task,) = json.loads(path.read_text())["tasks"]
    assert task["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert task["metrics"]["accuracy"]["examples"] == 3
    assert task["examples"][0] == {
        "prompt": "a prompt",
        "answer": "this",
        "expected": "that",
        "rows": {"accuracy": [1.0, 1.0]},
    }
    name, (again,) = read_results(path)
    assert (name, again.identity) == ("runs/a", one.identity)
    np.testing.assert_array_equal(again.rows["accuracy"], one.rows["accuracy"])
    # What is not known is null: NaN is no JSON.
    assert as_json("x", [result([1])])["tasks"][0]["metrics"]["accuracy"]["standard_error"] is None


@pytest.mark.parametrize("content", ['{"metrics": {}}', '{"format": 2}', '{"format": 1}'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"is not what `evaluate --task DIRECTORY --output FILE"):
        read_results(path)


def test_tasks_are_run_on_a_model(tmp_path):
    write(tmp_path, "t", CHOICE.format(data="d.jsonl"))
    tasks = read_tasks(tmp_path)
    (found,) = run_tasks(random_model(), tasks)
    assert found.identity == tasks[0].identity
    assert [one.expected for one in found.shown] == ["made", "said"]
    hits = [float(one.answer == one.expected) for one in found.shown]
    assert found.rows["accuracy"][:, 0].tolist() == hits
    assert not math.isnan(found.measured()["accuracy"].standard_error)


def test_nothing_is_asked_before_all_is_known_to_fit(tmp_path):
    write(tmp_path / "a", "task", CHOICE.format(data="d.jsonl"))
    write(tmp_path / "b", "task", CHOICE.format(data="d.jsonl") + "unidirectional = true")
    (tmp_path / "b" / "d.jsonl").write_text('{"text": "[sMASK]", "answer": 0}\n')
    lm = Oracle()
    with pytest.raises(UserError, match="the task 'b'"):
        run_tasks(lm, read_tasks(tmp_path))
    assert lm.asked == []


def test_a_model_without_a_tokenizer():
    lm = Oracle()
    lm.tokenizer = None
    with pytest.raises(UserError, match="tasks of texts need a tokenizer"):
        prompts_of(lm)


def test_several_right_answers_are_shown(tmp_path):
    spec = 'kind = "generate"\ndata = "d.jsonl"\nprompt = "{text}"'
    write(tmp_path, "t", spec, [{"text": "x", "answer": ["one", "two"]}])
    (task,) = read_tasks(tmp_path)
    found = result_of(task, [Outcome("one", {"exact_match": hit(True), "f1": hit(True)})], 0)
    assert found.shown == [Shown("x", "one", "one or two")]
