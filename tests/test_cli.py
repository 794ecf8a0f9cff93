"""Tests of glm_jax.cli."""

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glm_jax import cli
from glm_jax.errors import UserError


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


def test_set_is_repeatable(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from glm_jax.config import Config\n\n\ndef get_config():\n    return Config()\n"
    )
    parser = argparse.ArgumentParser()
    cli.add_config_arguments(parser)
    arguments = ["--config", str(path), "--set", "train.seed=3", "model.num_layers=2"]
    arguments += ["--set", "data.batch_size=4"]
    config = cli.config_from(parser.parse_args(arguments))
    assert (config.train.seed, config.model.num_layers, config.data.batch_size) == (3, 2, 4)


def test_arguments_that_are_wrong_are_one_sentence():
    parser = cli.Parser(prog="python -m glm_jax.some")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--max_new_tokens", type=int)
    cases = {
        ("--max_tokens", "3"): r"unknown option --max_tokens \(did you mean '--max_new_tokens'\?\)",
        ("--max_tokens=3",): r"unknown option --max_tokens \(did you mean",
        ("a", "b c"): "one argument too many: 'b c'; a text with spaces is written in quotes",
        ("--max_new_tokens", "x"): "argument --max_new_tokens: invalid int value: 'x'",
    }
    for arguments, message in cases.items():
        with pytest.raises(UserError, match=message):
            parser.parse_args(arguments)
    assert parser.parse_args(["a", "--max_new_tokens", "3"]).max_new_tokens == 3


def test_a_path_begins_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert cli.path("~/runs") == Path("/somewhere/runs")
    assert cli.path("runs") == Path("runs")
    with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
        cli.path("")


def test_every_path_of_every_command_is_of_that_type():
    """What argparse would take as a plain Path has no `~`."""
    for source in Path(cli.__file__).parent.glob("*.py"):
        assert "type=Path" not in source.read_text(encoding="utf-8"), source.name
        if source.name != "cli.py":
            assert "ArgumentParser(" not in source.read_text(encoding="utf-8"), source.name


@pytest.mark.parametrize("given", ["床前 [MASK]", os.fsdecode("床前 [MASK]".encode())])
def test_text_of_the_command_line(given):
    assert cli.text(given) == "床前 [MASK]"


def test_bytes_of_the_command_line_that_locales_without_utf8_could_not_read():
    escaped = "床".encode().decode("ascii", "surrogateescape")
    assert cli.text(escaped) == "床"
    with pytest.raises(argparse.ArgumentTypeError, match="not UTF-8: byte 0xe9 at 3"):
        cli.text("caf\udce9 [MASK]")


def standard_input(monkeypatch, data, encoding="utf-8"):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding=encoding))


def test_standard_input_is_utf8_also_where_the_locale_is_ascii(monkeypatch):
    standard_input(monkeypatch, "床\r\n前".encode(), "ascii")
    assert cli.read_input() == "床\n前"
    standard_input(monkeypatch, "\N{BOM}床".encode())  # as Windows writes files
    assert cli.read_input() == "床"
    standard_input(monkeypatch, b"caf\xe9", "latin-1")
    assert cli.read_input() == "café"


def test_standard_input_that_is_not_text_is_one_sentence(monkeypatch):
    standard_input(monkeypatch, b"caf\xe9 [MASK]")
    with pytest.raises(UserError, match="standard input is not UTF-8: byte 0xe9 at 3; convert"):
        cli.read_input()
    standard_input(monkeypatch, b"a\ncaf\xe9\nb")
    assert cli.read_line() == "a"
    with pytest.raises(UserError, match="not UTF-8"):
        cli.read_line()
    assert [cli.read_line(), cli.read_line()] == ["b", None]


def python(code, *, stdout=subprocess.PIPE, **variables):
    """Runs Python code that ends in `cli.run`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, env=environment
    )


PRINTS = "from glm_jax import cli\ncli.run(lambda: print('\\u5e8a' * 9, flush={flush}))"


@pytest.mark.processes
def test_what_the_terminal_cannot_show_is_escaped():
    done = python(PRINTS.format(flush=False), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\u5e8a" * 9 + b"\n"


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
def test_closed_streams():
    code = "import os; os.close(0); os.close(1)\n" + (
        "import sys; sys.stdin = sys.stdout = None\n"
        "from glm_jax import cli\n"
        "cli.run(lambda: print(cli.read_input()))"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.processes
@pytest.mark.parametrize(
    "name", ["generate", "train", "preview", "evaluate", "plan", "convert", "cache"]
)
def test_without_jax_a_command_says_where_it_is(name):
    arguments = {
        "generate": ["--checkpoint", ".", "a [MASK]"],
        "evaluate": ["--checkpoint", "."],
        "convert": ["a", "b"],
    }.get(name, ["--config", str(Path(cli.__file__).parents[1] / "configs" / "tiny_cpu.py")])
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
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "glm_jax" / "cli.py"))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    monkeypatch.setattr(sys, "argv", ["/x/glm_jax/generate.py"])
    assert cli._without("jax").endswith(f"{tmp_path}/.venv/bin/python -m glm_jax.generate ...")
    monkeypatch.chdir(tmp_path)
    assert cli._without("jax").endswith(": .venv/bin/python -m glm_jax.generate ...")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "`make demo` makes an environment" in cli._without("jax")


def test_another_missing_module_is_a_bug():
    def main():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    with pytest.raises(ModuleNotFoundError):
        cli.run(main)
