"""The models of the golden generation files, loaded as a user would."""

import json
import shutil
from pathlib import Path

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
