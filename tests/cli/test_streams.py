"""Standard input and output, whatever the locale."""

import io
import sys

import pytest

from glm_jax import cli
from glm_jax.errors import UserError
from tests.cli.as_process import PRINTS, python


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


@pytest.mark.processes
def test_what_the_terminal_cannot_show_is_escaped():
    done = python(PRINTS.format(flush=False), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\u5e8a" * 9 + b"\n"


@pytest.mark.processes
def test_closed_streams():
    code = "import os; os.close(0); os.close(1)\n" + (
        "import sys; sys.stdin = sys.stdout = None\n"
        "from glm_jax import cli\n"
        "cli.run(lambda: print(cli.read_input()))"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, b"")
