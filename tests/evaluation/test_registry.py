import importlib.util
import sys
import types

import pytest

from glm_jax.config import Config
from glm_jax.errors import UserError
from glm_jax.evaluation import registry as evaluations
from glm_jax.evaluation.registry import Request, find_task


class Model:
    tokenizer: str | None = "its tokenizer"


def test_a_task_of_answers_is_called_with_model_tokenizer_and_number(monkeypatch):
    asked = []

    def cloze(*arguments):
        asked.append(arguments)
        return {"accuracy": 0.5}

    monkeypatch.setattr(evaluations, "_tasks_on_texts", lambda: {"cloze": cloze})
    lm = Model()
    assert find_task("cloze")(lm, Request(Config(), num_examples=7)) == {"accuracy": 0.5}
    find_task("cloze")(lm, Request(Config()))
    assert asked == [(lm, "its tokenizer", 7), (lm, "its tokenizer", 200)]


def test_a_task_of_answers_needs_a_tokenizer():
    lm = Model()
    lm.tokenizer = None
    with pytest.raises(UserError, match="the task 'cloze' needs a tokenizer"):
        find_task("cloze")(lm, Request(Config()))


def test_a_name_that_seqio_does_not_know_either_lists_all_tasks(monkeypatch):
    """With SeqIO installed, whose import takes seconds: its names are given here."""
    known = types.SimpleNamespace(registered_names=lambda: ["my_task", "glm_pretrain"])
    monkeypatch.setitem(sys.modules, "glm_jax.tasks.evaluation", known)
    monkeypatch.setitem(sys.modules, "glm_jax.tasks", types.SimpleNamespace(evaluation=known))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(UserError, match=r"unknown task 'nonsense'; known: .*'cloze', 'glm"):
        find_task("nonsense")
    with pytest.raises(UserError, match=r"did you mean 'my_task'.*and of SeqIO: \['my_task'\]"):
        find_task("my_tusk")
    assert callable(find_task("my_task"))


def test_a_module_may_add_a_task(tmp_path, monkeypatch):
    (tmp_path / "my_evaluations.py").write_text(
        "from glm_jax.evaluation.registry import TASKS\n"
        "TASKS['mine'] = lambda lm, request: {'examples': request.num_examples}\n"
    )
    monkeypatch.setattr(evaluations, "TASKS", dict(evaluations.TASKS))
    monkeypatch.syspath_prepend(tmp_path)
    assert find_task("mine", "my_evaluations")(Model(), Request(Config(), num_examples=3)) == {
        "examples": 3
    }
    del sys.modules["my_evaluations"]


def test_names_that_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"unknown task 'clozes' \(did you mean 'cloze'"):
        find_task("clozes")
    with pytest.raises(UserError, match="--task_module: no module 'not_there'"):
        find_task("cloze", "not_there")
    # What such a module lacks itself is no mistake of the command's user.
    (tmp_path / "needs_another.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        find_task("cloze", "needs_another")


def test_what_a_task_does_not_act_on_is_refused(monkeypatch):
    monkeypatch.setitem(evaluations.TASKS, "mine", lambda lm, request: {})
    for name, takes in (
        ("glm_pretrain", {"split", "num_batches"}),
        ("held_out_cloze", {"num_examples"}),
        ("infilling_report", {"split", "num_examples"}),
        ("last_word", {"num_examples"}),
        ("of_seqio", {"split", "num_examples"}),
        ("mine", {"split", "num_batches", "num_examples"}),
    ):
        for option in evaluations.OPTIONS:
            asked = dict.fromkeys(evaluations.OPTIONS) | {option: 1}
            if option in takes:
                evaluations.check_takes(name, asked)
            else:
                with pytest.raises(UserError, match=f"--{option} is not for the task '{name}'"):
                    evaluations.check_takes(name, asked)
