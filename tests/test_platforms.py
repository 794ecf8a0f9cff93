"""jax is kept off a TPU that is not there, and off nothing else."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from glm_jax import platforms


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with libtpu and nothing else; jax has not been imported."""
    monkeypatch.setattr(platforms, "_DEVICES", (str(tmp_path / "accel*"),))
    monkeypatch.setattr(platforms, "_VENDORS", str(tmp_path / "*" / "vendor"))
    monkeypatch.setattr(platforms, "_has", lambda module: module == "libtpu")
    monkeypatch.delitem(sys.modules, "jax")
    # Set first, so that what is there now comes back whatever the code does.
    for name in platforms._SAID:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def chosen():
    platforms.stay_off_absent_tpus()
    return os.environ.get("JAX_PLATFORMS")


def test_without_any_device_jax_is_told_to_take_the_cpu(machine):
    (machine / "0").mkdir()
    (machine / "0" / "vendor").write_text("0x8086\n")
    assert chosen() == "cpu"


def test_a_device_file_leaves_jax_as_it_is(machine):
    (machine / "accel0").touch()
    assert chosen() is None


def test_a_tpu_on_the_bus_leaves_jax_as_it_is(machine):
    (machine / "0").mkdir()
    (machine / "0" / "vendor").write_text("0x1ae0\n")
    assert chosen() is None


@pytest.mark.parametrize("installed", [(), ("libtpu", "jax_plugins")])
def test_without_libtpu_or_with_another_plugin_jax_stays_as_it_is(machine, monkeypatch, installed):
    monkeypatch.setattr(platforms, "_has", lambda module: module in installed)
    assert chosen() is None


def test_the_user_decides(machine, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert chosen() == "cuda"
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert chosen() == ""
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("JAX_FORCE_TPU_INIT", "1")
    assert chosen() is None


@pytest.mark.parametrize(("before", "after"), [(None, "cpu"), ("tpu", "tpu")])
def test_a_jax_that_is_there_already_is_told_too(machine, monkeypatch, before, after):
    config = SimpleNamespace(jax_platforms=before)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    assert chosen() is None
    assert config.jax_platforms == after


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("first", ["import glm_jax, jax", "import jax, glm_jax"])
def test_plain_python_is_quiet(first):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    code = f"{first}; print(jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    if done.stdout != "cpu\n":
        pytest.skip("this machine has an accelerator")
    assert done.stderr == ""


@pytest.mark.processes
def test_the_path_library_is_told_even_if_it_was_asked_before():
    code = """
import sys, etils.epath.gpath as paths
asked = getattr(paths, "_is_tf_installed", None)
before = asked() if asked else None
from glm_jax.platforms import keep_paths_from_tensorflow
keep_paths_from_tensorflow()
print(asked() if asked else False, "tensorflow" in sys.modules)
"""
    environment = {k: v for k, v in os.environ.items() if k != "EPATH_USE_TF"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "False False\n"
