"""How a command ends."""

import os
import sys
from pathlib import Path

import pytest

from glm_jax import cli
from glm_jax.cli import ending
from glm_jax.errors import UserError
from tests.cli.as_process import PRINTS, python


def ends_with(main):
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    return end.value.code


def test_a_command_that_returns_nothing_ends_with_0():
    assert ends_with(lambda: None) == 0


def test_a_command_gives_its_own_status():
    assert ends_with(lambda: 1) == 1


def test_a_users_mistake_is_one_sentence_and_status_2(capsys):
    def main():
        raise UserError("no corpus matches 'my/*.txt'")

    assert ends_with(main) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no corpus matches 'my/*.txt'\n"
    assert captured.out == ""


def test_a_bug_keeps_its_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cli.run(main)


def test_interruption_is_130():
    def main():
        raise KeyboardInterrupt

    assert ends_with(main) == 130


@pytest.mark.processes
@pytest.mark.parametrize("flush", [False, True])
def test_output_that_cannot_be_written_is_one_sentence(flush):
    with open("/dev/full", "wb") as full:
        done = python(PRINTS.format(flush=flush), stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: cannot write to standard output (No space left")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.processes
@pytest.mark.parametrize("flush", [False, True])
def test_a_reader_that_went_away_is_141_without_a_word(flush):
    read, write = os.pipe()
    os.close(read)
    done = python(PRINTS.format(flush=flush), stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.processes
@pytest.mark.parametrize(
    "name", ["generate", "train", "preview", "evaluate", "plan", "convert", "cache"]
)
def test_without_jax_a_command_says_where_it_is(name):
    arguments = {
        "generate": ["--checkpoint", ".", "a [MASK]"],
        "evaluate": ["--checkpoint", "."],
        "convert": ["a", "b"],
    }.get(name, ["--config", str(Path(cli.__file__).parents[2] / "configs" / "tiny_cpu.py")])
    arguments += ["--workdir", "nowhere"] if name == "train" else []
    code = (
        "import runpy, sys\n"
        "for module in ('jax', 'numpy', 'jaxlib'): sys.modules[module] = None\n"
        f"sys.argv = ['glm_jax/{name}.py', *{arguments!r}]\n"
        f"runpy.run_module('glm_jax.{name}', run_name='__main__')"
    )
    done = python(code)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(b"\n") == 1
    assert b"is not installed for" in done.stderr


def test_the_environment_of_the_project_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(ending, "__file__", str(tmp_path / "glm_jax" / "cli" / "ending.py"))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    monkeypatch.setattr(sys, "argv", ["/x/glm_jax/generate.py"])
    assert ending._without("jax").endswith(f"{tmp_path}/.venv/bin/python -m glm_jax.generate ...")
    monkeypatch.chdir(tmp_path)
    assert ending._without("jax").endswith(": .venv/bin/python -m glm_jax.generate ...")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "`make demo` makes an environment" in ending._without("jax")


def test_another_missing_module_is_a_bug():
    def main():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    with pytest.raises(ModuleNotFoundError):
        cli.run(main)
