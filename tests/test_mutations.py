"""The table of `make mutate` fits the tree, and the tool tells killed from survived."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
assert SPEC
assert SPEC.loader
mutate = importlib.util.module_from_spec(SPEC)
sys.modules["mutate"] = mutate
SPEC.loader.exec_module(mutate)

TABLE = mutate.read_table()


@pytest.mark.parametrize("mutation", TABLE, ids=str)
def test_an_old_text_is_found_once(mutation):
    assert mutate.misfit(mutation) is None


def test_the_table_reaches_every_part_that_computes():
    assert len(TABLE) >= 60
    assert len(set(map(str, TABLE))) == len(TABLE)
    folders = {mutation.file.partition("/")[0] for mutation in TABLE}
    assert {"corruption", "data", "models", "training", "generation", "losses"} <= folders


@pytest.fixture
def tree(tmp_path):
    """A package of one module with a test of one of its two functions."""
    (tmp_path / "glm_jax").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / "glm_jax" / "__init__.py").write_text("")
    (tmp_path / "glm_jax" / "sums.py").write_text(
        "def add(a, b):\n    return a + b\n\n\ndef half(a):\n    return a / 2\n"
    )
    (tmp_path / "tests" / "test_sums.py").write_text(
        "from glm_jax.sums import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
    )
    return tmp_path


ADD = mutate.Mutation("sums.py", "minus", "a + b", "a - b")
HALF = mutate.Mutation("sums.py", "a third", "a / 2", "a / 3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"old": "a"},
            r"^sums\.py: minus: the old text must stand .* it stands there 6 times: 'a'$",
        ),
        ({"old": "a * b"}, "it stands there 0 times"),
        ({"new": "a + b"}, "differ from the new one"),
        ({"file": "more.py"}, r"^more\.py: minus is about a file that is not there\.$"),
        ({"tests": ("test_more.py::test_add",)}, r"names tests/test_more\.py::test_add, which is"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tree, change, message):
    fields = {"file": "sums.py", "name": "minus", "old": "a + b", "new": "a - b", **change}
    with pytest.raises(mutate.MisfitError, match=message):
        mutate.run([mutate.Mutation(**fields)], tree)


def test_a_table_of_unknown_fields_is_refused(tmp_path):
    table = tmp_path / "table.toml"
    table.write_text("[[mutation]]\nfile = 'a.py'\nwhy = 'x'\n")
    with pytest.raises(mutate.MisfitError, match=r"^table\.toml: .*why"):
        mutate.read_table(table)


def test_a_mistake_on_the_command_line_is_status_2(capsys):
    assert mutate.main(["--only", "no such words"]) == 2
    assert capsys.readouterr().err == "no mutation's file or name holds 'no such words'.\n"


@pytest.mark.processes
@pytest.mark.parametrize("reason", ["", pytest.param("nobody halves", marks=pytest.mark.nightly)])
def test_killed_survived_and_equivalent(tree, capsys, reason):
    before = {path: path.read_text() for path in tree.rglob("*.py")}
    third = mutate.dataclasses.replace(HALF, equivalent=reason)
    assert mutate.run([ADD, third], tree) == (0 if reason else 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [
        "killed",
        "equivalent" if reason else "SURVIVED",
    ]
    assert lines[4:] == ([] if reason else ["SURVIVED sums.py: a third"])
    assert {path: path.read_text() for path in tree.rglob("*.py")} == before


@pytest.mark.nightly
@pytest.mark.processes
def test_an_equivalent_one_that_is_killed_is_told(tree, capsys):
    assert mutate.run([mutate.dataclasses.replace(ADD, equivalent="no")], tree, workers=1) == 1
    assert "KILLED sums.py: minus" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.processes
@pytest.mark.parametrize(
    ("test", "message"),
    [("assert add(2, 3) == 6", "red without a mutation"), ("import none", "red without a")],
)
def test_tests_that_are_red_say_nothing(tree, test, message):
    path = tree / "tests" / "test_sums.py"
    path.write_text(path.read_text().replace("assert add(2, 3) == 5", test))
    with pytest.raises(mutate.MisfitError, match=message):
        mutate.run([ADD], tree)


@pytest.mark.processes
def test_a_test_that_is_not_there_is_told(tree):
    with pytest.raises(mutate.MisfitError, match=r"could not run tests/test_sums\.py::test_none"):
        mutate.run([mutate.dataclasses.replace(ADD, tests=("test_sums.py::test_none",))], tree)


@pytest.mark.processes
def test_tests_without_an_end_say_nothing(tree, monkeypatch):
    monkeypatch.setattr(mutate, "LONGEST", 3.0)
    path = tree / "tests" / "test_sums.py"
    path.write_text(path.read_text() + "    while True:\n        pass\n")
    with pytest.raises(mutate.MisfitError, match=r"test_sums\.py did not end in 3 s\.$"):
        mutate.run([ADD], tree)
