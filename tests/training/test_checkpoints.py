import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import to_dict
from glm_jax.errors import UserError
from glm_jax.sharding import make_mesh
from glm_jax.training.checkpoints import (
    Checkpoints,
    load_params,
    own_copy,
    save_params,
    saved_steps,
)
from glm_jax.training.state import create_state


@pytest.fixture
def mesh(config):
    return make_mesh(config.mesh)


@pytest.fixture
def state(config, mesh):
    """A state whose moments are not 0."""
    state = create_state(config, mesh)
    adam, *others = state.opt_state
    adam = adam._replace(
        mu=jax.tree.map(lambda p: p + 1, state.params), nu=jax.tree.map(jnp.square, state.params)
    )
    return dataclasses.replace(state, opt_state=(adam, *others))


def at(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def save(directory, config, mesh, states):
    checkpoints = Checkpoints(directory, config, mesh)
    for state in states:
        checkpoints.save(state, f"stream {int(state.step)}".encode())
        checkpoints.wait()
    checkpoints.close()


def test_a_state_comes_back_bit_for_bit(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 3)])
    restored, stream = Checkpoints(tmp_path / "c", config, mesh).restore()
    assert stream == b"stream 3"
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, at(state, 3))
    assert restored.params["embedding"]["table"].sharding.mesh == mesh


def test_nothing_saved_yet(tmp_path, config, mesh):
    assert Checkpoints(tmp_path / "c", config, mesh).restore() is None
    assert not (tmp_path / "c").exists()


def test_the_newest_stay(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, step) for step in (1, 2, 5, 9)])
    assert saved_steps(tmp_path / "c") == [5, 9]


def test_a_copy_to_be_saved_shares_no_memory_with_the_state(state):
    """Else the next step, to which the state is donated, would write into what is being saved."""
    for copy, leaf in zip(jax.tree.leaves(own_copy(state)), jax.tree.leaves(state), strict=True):
        assert copy.unsafe_buffer_pointer() != leaf.unsafe_buffer_pointer()


def test_donated_buffers_do_not_reach_the_writer(tmp_path, config, mesh, state, change):
    """Steps that start while a save is being written must not be in it."""
    config = change(config, "model.vocab_size", 8192)
    state = create_state(config, mesh)
    expected = jax.device_get(state)
    grow = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    checkpoints.save(state, b"")
    for _ in range(50):
        state = grow(state)
    jax.block_until_ready(state)
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path / "c", config, mesh).restore()
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_what_a_killed_save_leaves_is_ignored_and_removed(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1)])
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    (left / "params").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    assert checkpoints.steps() == [1]
    restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert not left.exists()


def test_a_damaged_newest_step_gives_way_to_the_one_before(tmp_path, config, mesh, state, caplog):
    save(tmp_path / "c", config, mesh, [at(state, 1), at(state, 2)])
    for file in (tmp_path / "c" / "2" / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:3])
    checkpoints = Checkpoints(tmp_path / "c", config, mesh)
    with caplog.at_level(logging.WARNING):
        restored, _ = checkpoints.restore()
    assert int(restored.step) == 1
    assert "checkpoint 2 cannot be read" in caplog.text
    # It must not count among the newest, nor be in the way when step 2 is saved again.
    assert checkpoints.steps() == [1]
    checkpoints.save(at(state, 2), b"")
    checkpoints.close()
    assert saved_steps(tmp_path / "c") == [1, 2]


def test_all_damaged_is_an_error(tmp_path, config, mesh, state):
    save(tmp_path / "c", config, mesh, [at(state, 1)])
    for file in (tmp_path / "c" / "1" / "params").rglob("d/*"):
        file.unlink()
    with pytest.raises(UserError, match=r"\[1\]"):
        Checkpoints(tmp_path / "c", config, mesh).restore()
    assert saved_steps(tmp_path / "c") == [1]


@pytest.mark.parametrize("stacked", [True, False])
def test_layers_come_in_the_layout_that_is_wanted(tmp_path, config, change, mesh, stacked):
    wanted = change(config, "model.scan_layers", stacked)
    saved = change(config, "model.scan_layers", not stacked)
    save(tmp_path / "c", saved, mesh, [at(create_state(saved, mesh), 1)])
    restored, _ = Checkpoints(tmp_path / "c", wanted, mesh).restore()
    expected = at(create_state(wanted, mesh), 1)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_load_params_of_a_workdir_and_of_a_step(tmp_path, config, change, mesh, state):
    save(tmp_path / "checkpoints", config, mesh, [at(state, 1), at(state, 2)])
    for found in (
        load_params(tmp_path),
        load_params(tmp_path / "checkpoints" / "2"),
        load_params(str(tmp_path), step=1),
    ):
        assert to_dict(found[0]) == to_dict(config)
        jax.tree.map(np.testing.assert_array_equal, found[1], state.params)
    stacked = change(config, "model.scan_layers", True)
    _, params = load_params(tmp_path, stacked)
    expected = create_state(stacked, mesh).params
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("stacked", [True, False])
def test_params_alone_are_written_and_read(tmp_path, config, change, mesh, state, stacked):
    params = create_state(change(config, "model.scan_layers", stacked), mesh).params
    save_params(tmp_path / "out", config.model, jax.tree.map(jnp.zeros_like, params))
    save_params(tmp_path / "out", config.model, params)
    found, loaded = load_params(tmp_path / "out")
    assert found.model == config.model
    jax.tree.map(np.testing.assert_array_equal, loaded, state.params)


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
