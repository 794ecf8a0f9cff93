"""The models of the golden generation files, loaded as a user would."""

import json
import shutil
from pathlib import Path

import jax
import pytest

import glm_jax

GENERATION = Path(__file__).parents[1] / "golden" / "glm" / "generation"


@pytest.fixture(scope="session")
def cases():
    return json.loads((GENERATION / "cases.json").read_text())


@pytest.fixture(scope="session")
def golden_directory(tmp_path_factory, cases):
    directory = tmp_path_factory.mktemp("generation")
    (directory / "config.json").write_text(json.dumps(cases["config"]))
    shutil.copy(GENERATION / "state_dict.safetensors", directory / "model.safetensors")
    return directory


@pytest.fixture(scope="session")
def lm(golden_directory):
    return glm_jax.load(golden_directory)


@pytest.fixture(scope="session")
def causal_lm():
    """ChatGLM2's layers, of the golden files."""
    return glm_jax.load(GENERATION.parents[1] / "chatglm" / "chatglm2")


class _Compiled(list):
    """Takes part in jax's monitoring: one item for each program that is compiled or read."""

    def __call__(self, name, seconds, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            self.append(name)


@pytest.fixture
def compiled():
    found = _Compiled()
    jax.monitoring.register_event_duration_secs_listener(found)
    jax.jit(lambda x: x + 1)(1)
    assert found, "jax has another name for what is counted"
    found.clear()
    yield found
    jax.monitoring.unregister_event_duration_listener(found)
