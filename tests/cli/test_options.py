"""Options that commands share."""

import argparse
import os
from pathlib import Path

import pytest

from glm_jax import cli
from glm_jax.buckets import BucketPath
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError


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
        ("a", "b c"): "one argument too many: 'b c'; put a text with spaces in quotes",
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


def test_a_bucket_is_taken_where_it_can_be(monkeypatch):
    with pytest.raises(argparse.ArgumentTypeError, match="takes a path on this machine; got 'gs:"):
        cli.path("gs://b/config.py")
    assert cli.path_or_bucket("gs://b/run") == cli.model("gs://b/run") == BucketPath("gs://b/run")
    assert cli.path_or_bucket("runs") == Path("runs")
    for kind in (cli.path_or_bucket, cli.model):
        with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
            kind("")
        with pytest.raises(argparse.ArgumentTypeError, match="only gs:// is read and written"):
            kind("s3://b/run")


def test_every_path_of_every_command_is_of_that_type():
    """What argparse would take as a plain Path has no `~`."""
    for source in Path(cli.__file__).parents[1].rglob("*.py"):
        assert "type=Path" not in source.read_text(encoding="utf-8"), source.name
        if source.name != "options.py":
            assert "ArgumentParser(" not in source.read_text(encoding="utf-8"), source.name


@pytest.mark.parametrize("given", ["床前 [MASK]", os.fsdecode("床前 [MASK]".encode())])
def test_text_of_the_command_line(given):
    assert cli.text(given) == "床前 [MASK]"


def test_bytes_of_the_command_line_that_locales_without_utf8_could_not_read():
    escaped = "床".encode().decode("ascii", "surrogateescape")
    assert cli.text(escaped) == "床"
    with pytest.raises(argparse.ArgumentTypeError, match="not UTF-8: byte 0xe9 at 3"):
        cli.text("caf\udce9 [MASK]")


def test_counts_and_rates_are_above_0():
    assert cli.positive_integer("12") == 12
    assert cli.positive_number("0.5") == 0.5
    for text in ("0", "-1", "1.5", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="a whole number, at least 1; got"):
            cli.positive_integer(text)
    for text in ("0", "-1", "nan", "inf", "fast", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a number above 0; got"):
            cli.positive_number(text)


def test_a_mesh_is_axes_with_sizes():
    parser = cli.Parser()
    cli.add_mesh_argument(parser)
    mesh = parser.parse_args(["--mesh", "fsdp=4, tensor=2"]).mesh
    assert mesh == MeshConfig(data=1, fsdp=4, tensor=2, sequence=1)
    for wrong, message in {
        "fsdp": "like fsdp=4,tensor=2, of data, fsdp, tensor, sequence; got 'fsdp'",
        "fspd=4": "got 'fspd=4'",
        "fsdp=2,fsdp=4": "got 'fsdp=2,fsdp=4'",
        "fsdp=0": "mesh.fsdp must be at least 1, or -1 for the rest; got 0",
        "fsdp=-1,tensor=-1": "at most one axis of mesh may be -1",
    }.items():
        with pytest.raises(UserError, match=message):
            parser.parse_args(["--mesh", wrong])


def test_an_adapter_is_a_path_or_that_of_the_bundled_model():
    parser = argparse.ArgumentParser()
    cli.add_adapter_argument(parser)
    assert parser.parse_args([]).adapter is None
    assert parser.parse_args(["--adapter", "runs/lora"]).adapter == Path("runs/lora")
    found = parser.parse_args(["--adapter", "bundled:aligned"]).adapter
    assert found.parts[-2:] == ("bundled", "aligned")
