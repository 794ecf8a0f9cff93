"""Stacked layers and listed ones hold the same numbers, in parameters and in moments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.checkpoints.layouts import convert_layers, own_copy, with_layout
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


def test_only_the_layout_changes():
    config = config_of("adamw")
    for stacked in (True, False):
        changed = with_layout(config, stacked)
        assert changed.compute.scan_layers is stacked
        assert dataclasses.replace(changed, compute=config.compute) == config


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_stacking_and_listing_are_inverse(name):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config = with_layout(config_of(name), False)
    listed = numbered(create_state(config, mesh))
    like = abstract_state(with_layout(config, True), mesh)
    stacked = convert_layers(listed, like, jax.tree.structure(listed.params), stack=True)
    for number in range(3):
        np.testing.assert_array_equal(
            stacked.params["layers"]["mlp"]["up"]["kernel"][number],
            listed.params["layers"][str(number)]["mlp"]["up"]["kernel"],
        )
    if name == "adamw":  # Adafactor's vectors have other shapes when layers are stacked
        assert jax.tree.structure(stacked) == jax.tree.structure(like)
        for array, wanted in zip(jax.tree.leaves(stacked), jax.tree.leaves(like), strict=True):
            assert array.shape == wanted.shape
    again = convert_layers(
        stacked, abstract_state(config, mesh), jax.tree.structure(stacked.params), stack=False
    )
    assert jax.tree.structure(again) == jax.tree.structure(listed)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(listed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_of_its_own_outlives_what_it_was_made_of():
    """The step gives its memory away; what is being saved must not change with it."""
    tree = {"a": jnp.arange(4.0), "b": [jnp.ones(2)]}
    copy = own_copy(tree)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
    if jax.default_backend() == "cpu":
        assert not pointers & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(copy)}
    for one, other in zip(jax.tree.leaves(copy), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, other)
