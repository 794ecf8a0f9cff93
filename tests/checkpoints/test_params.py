"""Parameters alone."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.params import load_params, save_params
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import to_dict
from glm_jax.errors import UserError
from glm_jax.models.trees import unstack_layers
from tests.checkpoints.saved import at, save


def test_load_params_of_a_workdir_and_of_a_step(tmp_path, config, change, mesh, state):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1), at(state, 2)])
    for found in (
        load_params(tmp_path),
        load_params(tmp_path / "checkpoints" / "2"),
        load_params(str(tmp_path), step=1),
    ):
        assert to_dict(found[0]) == to_dict(config)
        jax.tree.map(np.testing.assert_array_equal, found[1], state.params)


@pytest.mark.parametrize("listed", [True, False])
def test_params_alone_are_written_and_read(tmp_path, config, state, listed):
    params = unstack_layers(state.params) if listed else state.params
    save_params(tmp_path / "out", config.model, jax.tree.map(jnp.zeros_like, params))
    save_params(tmp_path / "out", config.model, params)
    found, loaded = load_params(tmp_path / "out")
    assert found.model == config.model
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_params_replace_nothing_else(tmp_path, config, mesh, state):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 0)])
    with pytest.raises(UserError, match="not empty"):
        save_params(tmp_path, config.model, state.params)
    assert saved_steps(tmp_path / "checkpoints") == [0]


@pytest.mark.parametrize("step", [None, 7])
def test_load_params_where_there_are_none(tmp_path, config, mesh, state, step):
    if step:
        save(tmp_path / "checkpoints", config, mesh, [at(state, 1)])
    with pytest.raises(UserError, match="step 7" if step else "no checkpoint"):
        load_params(tmp_path, step=step)


def test_checksums_need_not_be_looked_at(tmp_path, config, change, mesh, state):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1)])
    manifest = tmp_path / "checkpoints" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "x'))
    with pytest.raises(UserError, match="checksum differs"):
        load_params(tmp_path)
    _, params = load_params(tmp_path, change(config, "train.verify_checkpoints", False))
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def test_parameters_alone_need_no_optimizer(tmp_path, config, mesh, state):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1)])
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "optimizer")
    _, params = load_params(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
