"""Layers that were saved one by one are stacked, in parameters and in moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.layouts import own_copy, with_stacked_layers
from glm_jax.config import Config, MeshConfig, ModelConfig, OptimizerConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import abstract_state, create_state

MODEL = ModelConfig(vocab_size=32, num_layers=3, embed_dim=16, num_heads=2, max_positions=8)


def config_of(name):
    return Config(MODEL, optimizer=OptimizerConfig(name=name))


def numbered(state):
    """A state whose every number is another one."""
    leaves, structure = jax.tree.flatten(state)
    first, made = 0, []
    for leaf in leaves:
        made.append(jnp.arange(first, first + leaf.size, dtype=leaf.dtype).reshape(leaf.shape))
        first += leaf.size
    return jax.tree.unflatten(structure, made)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_listed_layers_are_stacked(name):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config = config_of(name)
    like = abstract_state(config, mesh, listed=True)
    listed = numbered(like)
    stacked = with_stacked_layers(
        listed, abstract_state(config, mesh), jax.tree.structure(listed.params)
    )
    for number in range(3):
        np.testing.assert_array_equal(
            stacked.params["layers"]["mlp"]["up"]["kernel"][number],
            listed.params["layers"][str(number)]["mlp"]["up"]["kernel"],
        )
    wanted = create_state(config, mesh)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, wanted)


def test_a_copy_of_its_own_outlives_what_it_was_made_of():
    """The step gives its memory away; what is being saved must not change with it."""
    tree = {"a": jnp.arange(4.0), "b": [jnp.ones(2)]}
    copy = own_copy(tree)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
    if jax.default_backend() == "cpu":
        assert not pointers & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(copy)}
    for one, other in zip(jax.tree.leaves(copy), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, other)
