"""Lines typed at a real terminal, and Ctrl-C."""

import os
import signal

import pytest

from glm_jax.cli import typed
from glm_jax.cli.typed import stops_by_interrupt, typed_line
from glm_jax.errors import UserError
from tests.cli.in_terminal import BACKSPACE, CTRL_D, LEFT, UP, Terminal

ECHOES = """
from glm_jax.cli.typed import at_terminal, typed_line
from glm_jax.errors import UserError
print(at_terminal())
while True:
    try:
        line = typed_line("> ")
        print("got", ascii(line))
        if line is None:
            break
    except UserError as error:
        print("refused", error)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.fixture
def heeded():
    """SIGINT raises here, in the background of a shell too, where it is ignored at first."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.processes
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_lines_are_edited_and_come_as_they_were_meant(locale):
    with Terminal("-c", ECHOES, LC_ALL=locale) as terminal:
        assert terminal.until("> ").startswith("True\n")
        terminal.type("床前明日".encode() + BACKSPACE + "月\n".encode())
        terminal.until(f"got {'床前明月'!a}")
        terminal.until("> ")
        terminal.type(UP + LEFT + "白\n".encode())
        terminal.until(f"got {'床前明白月'!a}")
        terminal.until("> ")
        terminal.type(b"caf\xff\n")
        terminal.until("refused what was typed is not UTF-8: byte 0xff;")
        terminal.until("> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.interrupt()
        terminal.until("interrupted")
        terminal.until("> ")
        terminal.type("whole\n")
        terminal.until("got 'whole'")
        terminal.until("> ")
        terminal.type(CTRL_D)
        terminal.until("got None")
        assert terminal.status()[0] == 0


def test_what_python_could_not_decode_is_named(monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "caf\udce9")
    with pytest.raises(UserError, match="not UTF-8: byte 0xe9;"):
        typed_line("> ")
    monkeypatch.setattr("builtins.input", lambda prompt: b"caf\xe8".decode())
    with pytest.raises(UserError, match="not UTF-8: byte 0xe8;"):
        typed_line("> ")


def test_both_ends_are_a_terminal_or_it_is_none(monkeypatch):
    for read, written in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(typed.sys.stdin, "isatty", lambda read=read: read)
        monkeypatch.setattr(typed.sys.stdout, "isatty", lambda written=written: written)
        assert typed.at_terminal() == (read and written)


def test_an_interrupt_is_a_flag_within_the_block_alone(heeded):
    with stops_by_interrupt() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with stops_by_interrupt() as stop:
        assert not stop()
