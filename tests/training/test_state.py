"""What a run changes, and where its arrays lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from glm_jax.config import Config, MeshConfig, ModelConfig, OptimizerConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import (
    abstract_state,
    create_state,
    num_bytes,
    opt_state_from_dict,
    opt_state_to_dict,
)
from tests.meshes import abstract_mesh

MODEL = ModelConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    mlp_dim=32,
    num_heads=4,
    max_positions=16,
)


def config_of(name, **model):
    return Config(
        dataclasses.replace(MODEL, **model),
        optimizer=OptimizerConfig(name=name),
    )


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def moments(state, ending):
    """Shape and spec of the optimizer's arrays at a parameter's path."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    found = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(ending):
            found[name] = (leaf.shape, leaf.sharding.spec)
    return list(found.values())


def test_adams_moments_lie_where_their_parameters_lie():
    state = abstract_state(config_of("adamw"), abstract_mesh(fsdp=2, tensor=2))
    lies = state.params["layers"]["mlp"]["up"]["kernel"].sharding.spec
    assert lies == P(None, "fsdp", "tensor")
    assert moments(state, "layers/mlp/up/kernel") == [((2, 32, 32), lies)] * 2
    assert moments(state, "layers/mlp/up/bias") == [((2, 32), P(None, "tensor"))] * 2
    assert moments(state, "count") == [((), P())] * len(moments(state, "count"))
    assert state.step.sharding.spec == P()


def test_a_factored_moment_has_the_axes_that_it_kept():
    """Of a table [256, 128] split P(tensor, fsdp) rows are split over tensor, columns over fsdp.

    Where D = F a vector of 128 could be either, and lies everywhere.
    """
    config = config_of("adafactor", vocab_size=256, embed_dim=128, mlp_dim=128)
    state = abstract_state(config, abstract_mesh(fsdp=2, tensor=2))
    assert state.params["embedding"]["table"].sharding.spec == P("tensor", "fsdp")
    assert state.params["layers"]["mlp"]["up"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    factored = [moment for moment in moments(state, "embedding/table") if moment[0] != (1,)]
    assert sorted(factored, key=str) == [((128,), P("fsdp")), ((256,), P("tensor"))]
    square = [moment for moment in moments(state, "layers/mlp/up/kernel") if moment[0] != (2, 1)]
    assert square == [((2, 128), P())] * 2


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_new_state_is_what_was_announced(name):
    config = config_of(name)
    state, announced = create_state(config, one_device()), abstract_state(config, one_device())
    assert jax.tree.structure(state) == jax.tree.structure(announced)
    for array, like in zip(jax.tree.leaves(state), jax.tree.leaves(announced), strict=True):
        assert (array.shape, array.dtype) == (like.shape, like.dtype)
        assert array.sharding.is_equivalent_to(like.sharding, array.ndim)
    assert int(state.step) == 0
    for leaf in jax.tree.leaves(state.opt_state):
        assert not np.asarray(leaf).any()


def test_parameters_that_are_given_are_used():
    config, mesh = config_of("adamw"), one_device()
    drawn = create_state(config, mesh).params
    given = jax.tree.map(lambda leaf: leaf + 1, drawn)
    state = create_state(config, mesh, given)
    np.testing.assert_array_equal(
        state.params["embedding"]["table"], drawn["embedding"]["table"] + 1
    )


def test_bytes_are_counted_by_arithmetic():
    assert num_bytes({"a": jnp.zeros((3, 5)), "b": [jnp.zeros(7, jnp.bfloat16)]}) == 60 + 14
    # V D, two tables of P + 1 rows, per layer 4 D^2 + 2 D F + biases and norms, a last norm.
    d = f = 32
    layer = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    count = 64 * d + 2 * 17 * d + 2 * layer + 2 * d
    state = abstract_state(config_of("adamw"), one_device())
    assert num_bytes(state.params) == 4 * count
    assert 8 * count <= num_bytes(state.opt_state) <= 8 * count + 16


def test_an_optimizers_state_as_a_plain_dict_and_back():
    state = create_state(config_of("adamw"), one_device()).opt_state
    values = opt_state_to_dict(jax.tree.map(lambda leaf: leaf + 1, state))
    kinds = {type(node) for node in jax.tree.leaves(values, is_leaf=lambda n: n is not values)}
    assert kinds == {dict}
    again = opt_state_from_dict(state, values)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(after, before + 1)
