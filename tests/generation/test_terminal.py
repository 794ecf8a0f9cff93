"""The session of `python -m glm_jax.chat`: from a pipe here, in a real terminal as a process."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.terminal import COMMANDS, Session, converse
from tests.cli.in_terminal import BACKSPACE, CTRL_D, Terminal
from tests.generation.chat_stand_ins import speaking


def piped(monkeypatch, capsys, lines, talk):
    """Status, standard output and standard error of a session whose input is a program's."""
    data = lines if isinstance(lines, bytes) else "\n".join([*lines, ""]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    status = converse(talk, "Speaker")
    return status, *capsys.readouterr()


def test_from_a_pipe_every_line_is_a_message_and_answers_alone_come_out(monkeypatch, capsys):
    talk = speaking("你好", "two\nlines")
    status, out, err = piped(monkeypatch, capsys, ["a", "", "  b  "], talk)
    assert (status, out, err) == (0, "你好\ntwo\nlines\n", "")
    assert [one["content"] for one in talk.messages[::2]] == ["a", "b"]


def test_what_is_refused_is_one_sentence_and_the_session_goes_on(monkeypatch, capsys):
    talk = speaking("b", "d")
    data = b"a\ncaf\xe9\n/sistem x\n" + b"x" * 300 + b"\nc\n"
    status, out, err = piped(monkeypatch, capsys, data, talk)
    assert (status, out) == (2, "b\nd\n")
    sentences = err.splitlines()
    assert len(sentences) == 3
    assert sentences[0].startswith("error: standard input is not UTF-8: byte 0xe9 at 3")
    assert sentences[1].startswith("error: no command '/sistem' (did you mean '/system'?)")
    assert re.match(r"error: the prompt has 304 tokens.*context of 256", sentences[2])
    assert [one["content"] for one in talk.messages] == ["a", "b", "c", "d"]


def test_commands(monkeypatch, capsys, tmp_path):
    talk = speaking("b", "d", "f")
    file = tmp_path / "chat.json"
    lines = ["/undo", "/system sys", "a", "/tokens", "c", "/undo", f"/save {file}", "/clear"]
    lines += ["e", f"/save {file}", "/exit", "never read"]
    status, out, err = piped(monkeypatch, capsys, lines, talk)
    assert status == 2
    assert out.splitlines() == [
        "b",
        "13 tokens so far of the model's 256; 0 in the cache",
        "d",
        "f",
    ]
    assert err.splitlines() == [
        "error: nothing to undo: there is no message yet",
        "(taken back: c)",
        f"(3 messages in {file})",
        f"(3 messages in {file})",
    ]
    assert json.loads(file.read_text(encoding="utf-8")) == talk.messages
    assert [(one["role"], one["content"]) for one in talk.messages] == [
        ("system", "sys"),
        ("user", "e"),
        ("assistant", "f"),
    ]


def test_save_replaces_nothing_of_others(tmp_path):
    session = Session(speaking(), typed=False)
    (tmp_path / "mine").write_text("precious")
    for name, reason in (("mine", "exists already"), ("no/where", "cannot write"), ("", "needs")):
        with pytest.raises(UserError, match=reason):
            session.take(f"/save {tmp_path / name if name else ''}")
    assert (tmp_path / "mine").read_text() == "precious"


def test_help_lists_every_command(capsys):
    session = Session(speaking("x"), typed=True)
    assert session.take("/help")
    shown = capsys.readouterr().out
    for name, does in COMMANDS.items():
        assert name in shown
        assert does in shown
        if name not in ("/save FILE", "/tool RESULT", "/undo", "/exit"):
            assert session.take(name.partition(" ")[0])  # each is known
    assert not session.take("/exit")
    # A space in front makes a message of it.
    session.take(" /help")
    assert session.talk.messages[0]["content"] == "/help"


def test_dropped_turns_and_cut_answers_are_said(monkeypatch, capsys):
    talk = speaking(*"abcd", "e" * 9, max_new_tokens=4)
    # Behind n turns of 84 ids a prompt of m more has 4 + 84 n + m; it may have 256 - 4.
    lines = ["x" * 80, "x" * 80, "x" * 80, "x" * 80, "y" * 99]
    status, out, err = piped(monkeypatch, capsys, lines, talk)
    assert (status, out) == (0, "a\nb\nc\nd\neeee\n")
    assert err.splitlines() == [
        "(beyond the context of 256 tokens, dropped from the conversation: the oldest turn)",
        "(beyond the context of 256 tokens, dropped from the conversation: the 2 oldest turns)",
        "(cut after 4 tokens)",
    ]


def test_a_call_is_shown_and_its_result_typed(monkeypatch, capsys):
    talk = speaking("call weather", lambda text: text + "!", tools=[{"name": "weather"}])
    lines = ["/tool early", "how is it?", "/tool 21 degrees"]
    status, out, err = piped(monkeypatch, capsys, lines, talk)
    assert (status, out) == (2, "call weather\n21 degrees!\n")
    assert err.splitlines() == [
        "error: the model has not called a function; /tool gives the result of a call",
        '(the model calls {"name": "weather", "arguments": {}}; /tool RESULT goes on)',
    ]
    assert talk.messages[2] == {"role": "tool", "content": "21 degrees"}


SPEAKS = """
import sys, time
from pathlib import Path
from glm_jax import cli
from glm_jax.generation.terminal import converse
from tests.generation.chat_stand_ins import speaking

def wait():
    global said
    said += 1
    while said == 4 and not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    time.sleep(0.001)

said = 0
talk = speaking("床 and more", lambda text: text + "?", "x" * 10**6, "z", wait=wait,
                max_positions=512, max_new_tokens=400)
cli.run(lambda: converse(talk, "about the model"))
"""


@pytest.mark.processes
def test_in_a_real_terminal(tmp_path):
    go_on = tmp_path / "go on"
    with Terminal("-c", SPEAKS, str(go_on)) as terminal:
        shown = terminal.until("> ")
        assert "about the model\n/help lists the commands" in shown
        # The first character, of three bytes, is there while the model is still speaking.
        terminal.type("hello\n")
        terminal.until("床")
        assert not go_on.exists()
        go_on.touch()
        terminal.until(" and more\n")
        terminal.until("> ")
        # A line of Chinese, edited.
        terminal.type("床前明日".encode() + BACKSPACE + "月\n".encode())
        terminal.until("床前明月?\n")
        terminal.until("> ")
        terminal.type(b"\xff\n")
        terminal.until("error: what was typed is not UTF-8: byte 0xff")
        terminal.until("> ")
        # Ctrl-C stops the answer, the program goes on, and the turn can be taken back.
        terminal.type("go\n")
        terminal.until("xxxx")
        terminal.interrupt()
        terminal.until("\n(stopped)\n")
        terminal.until("> ")
        terminal.type("/undo\n")
        terminal.until("(taken back: go)\n")
        terminal.until("> ")
        terminal.type("/tokens\n")
        # 2 + 6 + 14 + 13 + 15 + 2 ids: framed, two messages and two answers, and an empty one.
        terminal.until("52 tokens so far")
        terminal.until("> ")
        # Ctrl-C at the prompt: once is forgiven, if a line is typed behind it.
        terminal.interrupt()
        terminal.until("(Ctrl-C once more ends")
        terminal.until("> ")
        terminal.type("/tokens\n")
        terminal.until("52 tokens so far")
        terminal.until("> ")
        terminal.interrupt()
        terminal.until("(Ctrl-C once more ends")
        terminal.until("> ")
        terminal.interrupt()
        assert terminal.status()[0] == 130


@pytest.mark.processes
def test_the_end_of_the_input_ends_a_session_with_status_0(tmp_path):
    with Terminal("-c", SPEAKS, str(tmp_path)) as terminal:
        terminal.until("> ")
        terminal.type(CTRL_D)
        status, shown = terminal.status()
        assert (status, shown.count("Traceback")) == (0, 0)


def test_the_page_lists_every_command():
    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in COMMANDS)
