"""Tests of glm_jax.cli."""

import argparse
import os

import jax
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
    arguments = ["--config", str(path), "--set", "train.seed=3", "--set", "model.num_layers=2"]
    config = cli.config_from(parser.parse_args(arguments))
    assert (config.train.seed, config.model.num_layers) == (3, 2)


@pytest.mark.parametrize(
    ("files", "chosen", "expected"),
    [([], None, "cpu"), (["accel0"], None, None), ([], "cuda", "cuda")],
)
def test_a_machine_without_accelerators_is_told_to_jax(
    tmp_path, monkeypatch, files, chosen, expected
):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(cli, "_ACCELERATORS", (str(tmp_path / "accel*"),))
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    # Set first, so that what is there now comes back whatever the code does.
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.delenv("JAX_PLATFORMS")
    if chosen:
        monkeypatch.setenv("JAX_PLATFORMS", chosen)
    cli.stay_off_absent_tpus()
    assert os.environ.get("JAX_PLATFORMS") == expected
