"""States of a tiny run, and their checkpoints."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.state import create_state


def at(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def save(directory, config, mesh, states):
    checkpoints = Checkpoints(directory, config, mesh)
    for state in states:
        checkpoints.save(state, f"stream {int(state.step)}".encode())
        checkpoints.wait()
    checkpoints.close()


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
