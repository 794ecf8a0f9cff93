import dataclasses

import pytest

from glm_jax.config import Config, TrainConfig
from glm_jax.errors import UserError
from glm_jax.evaluation.in_training import check_best_metric, section, tasks_in_training
from glm_jax.evaluation.results import run_tasks
from glm_jax.evaluation.task_files import read_tasks
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.trees import stack_layers
from tests.evaluation.models import BLANKS, TOKENIZER, random_model
from tests.evaluation.test_results import result
from tests.evaluation.test_task_files import CHOICE, LINES, write

LM = random_model()


def find_task(name):
    def task(lm, request):
        assert isinstance(lm, LanguageModel)
        assert request.num_examples == 3
        return {"f1": 0.25, "examples": 3.0, "loss/span": 2.0}

    return task


def made(names, **train):
    config = Config(model=BLANKS, train=TrainConfig(eval_tasks=names, eval_examples=3, **train))

    def model(params):
        return LanguageModel(config.resolved_model, params, TOKENIZER)

    return tasks_in_training(config, TOKENIZER, find_task, model)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "tasks", "words", CHOICE.format(data="d.jsonl"), LINES * 3)
    return tmp_path / "tasks"


def test_files_and_names_are_asked_of_the_parameters(folder):
    tasks = made(f"{folder}, mine")
    assert tasks.metrics == ["eval/words/accuracy", "eval/words/accuracy_per_token"]
    assert tasks.registered == ["mine"]
    found = tasks(stack_layers(LM.params))
    (alone,) = run_tasks(LM, read_tasks(folder, 3))
    measured = {f"eval/words/{name}": one.value for name, one in alone.measured().items()}
    assert found.values == {**measured, "eval/mine/f1": 0.25, "eval/mine/loss/span": 2.0}
    assert found.line.endswith("mine/f1 0.25, mine/loss/span 2")
    assert found.shown == section(alone)
    assert made(str(folder)).fingerprint != tasks.fingerprint


def test_a_section_shows_three_examples():
    shown = dataclasses.replace(result([1, 0, 1, 1]))
    lines = section(shown).splitlines()
    assert lines[0] == "  reviews: accuracy 0.75 (standard error 0.25)"
    assert lines[1:4] == ["    prompt:   a prompt", "    answer:   this", "    expected: that"]
    assert len(lines) == 1 + 3 * 3
    long = [dataclasses.replace(shown.shown[0], prompt="no " * 300 + "end\nof it", expected="")]
    lines = section(dataclasses.replace(shown, shown=long)).splitlines()
    assert lines[1].startswith("    prompt:   … ")
    assert lines[1].endswith("no end of it")
    assert len(lines) == 3


def test_two_tasks_of_one_name(folder):
    with pytest.raises(UserError, match=r"train\.eval_tasks has two tasks of the name 'words'"):
        made(f"{folder},words")


def test_what_does_not_fit_is_refused_before_training(folder):
    (folder / "d.jsonl").write_text('{"text": "[sMASK]", "answer": 0}\n')
    with pytest.raises(UserError, match=r"the task 'words': .*line 1: .* spells a special token"):
        made(str(folder))


def test_the_best_metric_is_one_that_there_is(folder):
    tasks = made(f"{folder},mine")

    def check(metric, tasks=tasks, keep_best=1):
        check_best_metric(TrainConfig(best_metric=metric, keep_best=keep_best), tasks)

    for metric in ("eval/loss", "eval/loss/span", "eval/words/accuracy", "eval/mine/f1"):
        check(metric)
    check("eval/words/acuracy", keep_best=0)
    with pytest.raises(
        UserError, match=r"'eval/words/acuracy' is no metric of .* mean 'eval/words"
    ):
        check("eval/words/acuracy")
    with pytest.raises(UserError, match=r"there are none, without train\.eval_tasks"):
        check("eval/words/accuracy", None)
