import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import glm_jax
from glm_jax.convert import main
from glm_jax.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "chatglm"
CHATGLM2 = str(GOLDEN / "chatglm2")


def same_tensors(path, expected):
    found = load_file(path)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(found[key], tensor, err_msg=key)


def test_names_are_converted(tmp_path, capsys):
    assert main([CHATGLM2, str(tmp_path / "a"), "--names", "native"]) == 0
    expected = load_file(GOLDEN / "chatglm2" / "model_native_names.safetensors")
    same_tensors(tmp_path / "a" / "model.safetensors", expected)
    shown = capsys.readouterr()
    assert "files        model.safetensors, config.json" in shown.out
    assert "converting: 100%" in shown.err
    assert "25/25" in shown.err


def test_through_a_checkpoint_of_this_project_and_back(tmp_path, capsys):
    assert main([CHATGLM2, str(tmp_path / "a"), "--to", "orbax"]) == 0
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--names", "original"]) == 0
    shown = capsys.readouterr().err
    assert "reading: 100%" in shown
    assert "writing: 100%" in shown
    expected = load_file(GOLDEN / "chatglm2" / "model.safetensors")
    same_tensors(tmp_path / "b" / "model.safetensors", expected)


def test_the_dtype_is_converted(tmp_path):
    assert main([CHATGLM2, str(tmp_path / "a"), "--dtype", "bfloat16"]) == 0
    assert glm_jax.load(tmp_path / "a").config.param_dtype == "bfloat16"
    assert json.loads((tmp_path / "a" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_dry_run_writes_nothing(tmp_path, capsys, to):
    assert main([CHATGLM2, str(tmp_path / "a"), "--to", to, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    out = capsys.readouterr().out
    assert "ChatGLM2/3" in out
    assert "parameters   109,120" in out
    assert "bytes        436,480" in out


def test_mistakes_are_said_before_anything_is_read(tmp_path):
    target = str(tmp_path / "a")
    with pytest.raises(UserError, match=r"no directory 'THUDM/chatglm2-6b'.*downloaded first"):
        main(["THUDM/chatglm2-6b", target])
    with pytest.raises(UserError, match=r"neither config.json"):
        main([str(tmp_path), target])
    with pytest.raises(UserError, match="GLM-4-0414 has no original names"):
        main([str(GOLDEN / "glm4_0414"), target, "--names", "original"])
    with pytest.raises(UserError, match="--names is for --to huggingface"):
        main([CHATGLM2, target, "--to", "orbax", "--names", "native"])
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="holds more than a model"):
        main([CHATGLM2, str(tmp_path), "--dry-run"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.processes
def test_a_mistake_is_one_sentence_and_status_2(tmp_path):
    shutil.copytree(GOLDEN / "chatglm2", tmp_path / "a")
    path = tmp_path / "a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    command = [sys.executable, "-m", "glm_jax.convert", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path} is damaged or incomplete")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "b").exists()


@pytest.mark.processes
@pytest.mark.parametrize("to", ["huggingface", "orbax"])
def test_a_killed_conversion_leaves_nothing_that_looks_complete(tmp_path, to):
    """Killed where the first tensor is written, or orbax has begun."""
    shutil.copytree(GOLDEN / "chatglm2", tmp_path / "source")
    target = tmp_path / "target"
    code = f"""
import sys, time
sys.argv = ["convert", {str(tmp_path / "source")!r}, {str(target)!r}, "--to", {to!r}]
import orbax.checkpoint.experimental.v1 as ocp
import glm_jax.convert, glm_jax.interop.huggingface as huggingface
from glm_jax import cli
write = huggingface.write_safetensors

def slow(path, tensors):
    for name in write(path, tensors):
        print("written", flush=True)
        time.sleep(60)
        yield name

def stop(*arguments, **options):
    print("written", flush=True)
    time.sleep(60)

huggingface.write_safetensors = slow
ocp.save_checkpointables = stop
cli.run(glm_jax.convert.main)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert not target.exists()
    left = [path for path in tmp_path.iterdir() if path.name != "source"]
    assert [path.name.startswith(".target.new-") for path in left] == [True]
    with pytest.raises(UserError):
        glm_jax.load(left[0])
    # The next conversion clears up.
    assert main([str(tmp_path / "source"), str(target), "--to", to]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    assert glm_jax.load(target).config.num_layers == 2
