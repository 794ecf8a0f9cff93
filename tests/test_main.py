"""`python -m glm_jax` knows every command there is."""

import importlib
import sys
from pathlib import Path

import pytest

import glm_jax
from glm_jax.__main__ import COMMANDS, main
from glm_jax.errors import UserError


def test_every_command_is_listed(monkeypatch, capsys):
    package = Path(glm_jax.__file__).parent
    commands = {
        path.stem
        for path in package.glob("*.py")
        if "cli.run(main)" in path.read_text(encoding="utf-8") and path.stem != "__main__"
    }
    assert set(COMMANDS) == commands
    monkeypatch.setattr(sys, "argv", ["glm_jax"])
    assert main() == 0
    shown = capsys.readouterr().out
    for name, does in COMMANDS.items():
        assert f"python -m glm_jax.{name} " in shown
        assert does in shown


@pytest.mark.parametrize(
    ("argument", "message"),
    [("train", "python -m glm_jax.train"), ("trian", "no command 'trian' .did you mean 'train'")],
)
def test_a_command_given_as_an_argument(monkeypatch, argument, message):
    monkeypatch.setattr(sys, "argv", ["glm_jax", argument])
    with pytest.raises(UserError, match=message):
        main()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, monkeypatch, capsys):
    module = importlib.import_module(f"glm_jax.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert f"usage: python -m glm_jax.{name}" in capsys.readouterr().out
