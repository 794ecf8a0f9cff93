"""`evaluate`, `generate` and `convert` on two processes of two devices give what one gives."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import glm_jax
from glm_jax import cli
from glm_jax.config.training import MeshConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_prefix
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run.processes import run_alike, wanted_mesh
from tests.free_port import joining

ROOT = Path(__file__).parents[3]
TEXT = "The [MASK] was without form."


def on_two(*command):
    """Output and errors of both processes, which must end with status 0."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command, *joins],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for joins in joining(2)
    ]
    return [(*process.communicate(timeout=600), process.returncode) for process in running]


def on_one(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.processes
@pytest.mark.nightly  # 20 s; metrics and directories of two processes are below
def test_candidates_over_two_processes_are_those_of_one():
    command = ["glm_jax.generate", TEXT, "--candidates", "3", "--json"]
    (said, errors, status), other = on_two(*command, "--mesh", "fsdp=2,tensor=2")
    assert (status, other[2]) == (0, 0), errors + other[1]
    assert "process 0 of 2, 2 of 4 devices here" in errors
    assert other[0] == ""
    # One JSON object and nothing else: gloo's lines go to standard error.
    ours, theirs = json.loads(said), json.loads(on_one(*command))
    assert [one["text"] for one in ours["candidates"]] == [
        one["text"] for one in theirs["candidates"]
    ]
    assert [one["probability"] for one in ours["candidates"]] == pytest.approx(
        [one["probability"] for one in theirs["candidates"]], rel=1e-5
    )


@pytest.mark.processes
def test_metrics_over_two_processes_are_those_of_one(tmp_path):
    command = ["glm_jax.evaluate", "--checkpoint", "bundled", "--task", "cloze"]
    command += ["--num_examples", "8"]
    output = tmp_path / "metrics.json"
    (said, errors, status), other = on_two(*command, "--output", str(output))
    assert (status, other[2]) == (0, 0), errors + other[1]
    assert (said, other[0]) == (on_one(*command), "")
    assert json.loads(output.read_text())["metrics"]["examples"] == 8


@pytest.mark.processes
@pytest.mark.nightly  # half a minute, and each part has its own test
def test_a_trained_prefix_over_two_processes_is_that_of_one(tmp_path):
    lm = glm_jax.load("bundled")
    config = dataclasses.replace(lm.config, prefix_length=3)
    prefix = create_prefix(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    prefix = jax.tree.map(lambda leaf: 50 * leaf, prefix)  # the answer is another one with it
    LanguageModel(config, {**lm.params, "prefix": prefix}).save(tmp_path, format="ptuning")
    command = ["glm_jax.generate", TEXT]
    adapted = [*command, "--adapter", str(tmp_path)]
    (said, errors, status), other = on_two(*adapted, "--mesh", "fsdp=2,tensor=2")
    assert (status, other[2]) == (0, 0), errors + other[1]
    assert (said, other[0]) == (on_one(*adapted), "")
    assert said != on_one(*command)


@pytest.mark.nightly
@pytest.mark.processes
def test_two_processes_write_the_directory_that_one_writes(tmp_path):
    run, one, two = (tmp_path / name for name in ("run", "one", "two"))
    on_one("glm_jax.convert", "bundled", str(run), "--to", "orbax")
    on_one("glm_jax.convert", str(run), str(one))
    (said, errors, status), other = on_two("glm_jax.convert", str(run), str(two))
    assert (status, other[2]) == (0, 0), errors + other[1]
    assert said.endswith(f"written      {two}\n")
    assert other[0] == ""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.processes
def test_what_only_one_process_can_do():
    for command, message in (
        (["glm_jax.generate", "-"], "none has the standard input of all"),
        (["glm_jax.convert", "bundled", "no", "--to", "orbax"], "--to orbax is for one"),
    ):
        for said, errors, status in on_two(*command):
            assert status == 2
            assert message in errors
            assert said == ""


def test_a_single_process_joins_nothing(monkeypatch):
    for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    parser = cli.Parser()
    cli.add_mesh_argument(parser)
    assert run_alike(lambda: None, parser.parse_args([])) == 0
    assert run_alike(lambda: 3, parser.parse_args([])) == 3
    assert wanted_mesh(parser.parse_args([]).mesh) is None
    asked = parser.parse_args(["--mesh", "fsdp=-1,tensor=2"]).mesh
    assert wanted_mesh(asked) == MeshConfig(data=1, fsdp=-1, tensor=2)
