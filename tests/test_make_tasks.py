"""The tasks in examples/tasks are what tools/make_tasks.py makes of the bundled corpus."""

import importlib.util
from pathlib import Path

import pytest

from glm_jax.evaluation.kinds import KINDS
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.task_files import read_tasks
from tests.evaluation.models import BLANKS, TOKENIZER

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "tasks"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "make_tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_up_to_date(tool):
    """If not: python tools/make_tasks.py."""
    for name, some in tool.examples(100).items():
        assert (FOLDER / f"{name}.toml").read_text(encoding="utf-8") == tool.SPECS[name]
        assert (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8") == tool.lines(some)


def test_they_are_tasks_that_fit_a_model_of_64_positions():
    tasks = read_tasks(FOLDER)
    assert [task.name for task in tasks] == ["blanks", "cloze", "documents", "last_word"]
    assert [len(task.examples) for task in tasks] == [50, 100, 32, 100]
    for task in tasks:
        assert len(task.prepared(Prompts(TOKENIZER, BLANKS))) == len(task.examples)
        assert task.spec.kind in KINDS
