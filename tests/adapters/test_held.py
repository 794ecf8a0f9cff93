"""What a run holds follows from its config: shapes, what is trained, the first adapters."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.adapters.held import (
    abstract_base,
    abstract_held,
    check_base,
    check_targets,
    draw_adapters,
    plain_base,
    split_held,
    with_trained,
)
from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import Quantised, is_quantised
from glm_jax.adapters.quantising import Quantize
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.params import abstract_params, create_params
from glm_jax.models.trees import to_paths, unstack_layers
from glm_jax.sharding.mesh import make_mesh
from tests.tiny_run import change_fields, tiny_config

MESH = make_mesh(MeshConfig(), jax.devices()[:1])
QUERY = "layers/attention/query/kernel"


def config_with(**sections):
    return change_fields(tiny_config(), **sections)


def shapes_of(config, listed=False):
    return abstract_params(config.resolved_model, MESH, listed=listed)


def held(config, listed=False):
    return abstract_held(config, shapes_of(config, listed))


def base_of(config, listed=False):
    return abstract_base(config, shapes_of(config, listed))


def drawn_by(config):
    return to_paths(draw_adapters(config, held(config)))


def check(config):
    check_targets(config, shapes_of(config))


def names(params):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(params)
    }


def test_adapters_stand_beside_their_matrices_and_are_float32():
    config = config_with(lora={"rank": 3}, model={"param_dtype": "bfloat16"})
    found = to_paths(held(config))
    query = found[QUERY]
    assert isinstance(query, LowRank)
    assert (query.base.shape, query.base.dtype) == ((2, 16, 2, 8), jnp.bfloat16)
    assert (query.a.shape, query.b.shape) == ((2, 16, 3), (2, 3, 2, 8))
    assert query.a.dtype == query.b.dtype == jnp.float32
    assert (query.scale, query.rate) == (pytest.approx(32 / 3), 0.1)
    assert not isinstance(found["layers/attention/out/kernel"], LowRank)
    listed = to_paths(held(config, listed=True))["layers/1/attention/query/kernel"]
    assert (listed.a.shape, listed.b.shape) == ((16, 3), (3, 2, 8))


def test_what_heads_are_joined_in_takes_all_of_their_features():
    config = config_with(lora={"rank": 3, "targets": "attention/out, mlp/.*"})
    found = to_paths(held(config))
    out, down = found["layers/attention/out/kernel"], found["layers/mlp/down/kernel"]
    assert (out.a.shape, out.b.shape) == ((2, 2, 8, 3), (2, 3, 16))
    assert (down.a.shape, down.b.shape) == ((2, 64, 3), (2, 3, 16))
    assert not isinstance(found[QUERY], LowRank)


def test_adapters_alone_are_trained_and_what_is_named_beside_them():
    config = config_with(lora={"rank": 2, "targets": "attention/query, mlp/up"})
    trained, frozen = split_held(config, held(config))
    adapters = {
        f"layers/{name}/kernel/{array}" for name in ("attention/query", "mlp/up") for array in "ab"
    }
    assert names(trained) == adapters
    assert f"{QUERY}/base" in names(frozen)
    both = change_fields(config, train={"trainable": ".*norm/.*"})
    trained, _ = split_held(both, held(both))
    norms = {"final_norm/bias", "final_norm/scale"} | {
        f"layers/{norm}_norm/{array}"
        for norm in ("attention", "mlp")
        for array in ("bias", "scale")
    }
    assert names(trained) == adapters | norms


def test_patterns_that_match_nothing():
    with pytest.raises(
        UserError, match=r"'attention/querry' matches no matrix.*did you mean 'atte"
    ):
        check(config_with(lora={"rank": 2, "targets": "mlp/up, attention/querry"}))
    # GLM's MLP has no gate.
    with pytest.raises(UserError, match=r"'mlp/gate' matches no .*mlp/down, mlp/up"):
        check(config_with(lora={"rank": 2, "targets": "mlp/gate"}))
    check(config_with(lora={"targets": "mlp/gate"}))
    config = config_with(lora={"rank": 2}, train={"trainable": "mlp/up"})
    with pytest.raises(UserError, match=r"train\.trainable='mlp/up' matches no parameter"):
        split_held(config, held(config))


def test_a_is_drawn_by_seed_and_path_and_b_is_zero():
    config = config_with(lora={"rank": 4, "targets": "attention/query, mlp/down"})
    drawn, again = (drawn_by(config) for _ in range(2))
    query, down = drawn[QUERY], drawn["layers/mlp/down/kernel"]
    np.testing.assert_array_equal(query.a, again[QUERY].a)
    assert not np.any(query.b)
    for leaf, inputs in ((query, 16), (down, 64)):
        bound = 1 / np.sqrt(inputs)
        assert 0.9 * bound < np.abs(leaf.a).max() <= bound
        # Of a uniform distribution.
        assert np.std(leaf.a) == pytest.approx(bound / np.sqrt(3), rel=0.15)
        assert not np.allclose(leaf.a[0], leaf.a[1])
    other = drawn_by(change_fields(config, train={"seed": 1}))
    assert not np.allclose(other[QUERY].a, query.a)
    # Another target beside it changes nothing.
    alone = config_with(lora={"rank": 4, "targets": "attention/query"})
    np.testing.assert_array_equal(drawn_by(alone)[QUERY].a, query.a)


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 8)])
@pytest.mark.parametrize("listed", [False, True])
def test_the_shapes_of_a_quantised_base_are_those_of_what_quantises(bits, group, listed):
    config = config_with(
        train={
            "quantize_base": f"int{bits}",
            "quantize_group_size": group,
            "trainable": "layers/mlp/down/kernel|.*norm/.*",
        }
    )
    params = create_params(config.resolved_model, MESH, 0)
    params = unstack_layers(params) if listed else params
    made = plain_base(config, quantise_params(params, MESH, Quantize(bits, group)))
    like = base_of(config, listed)
    assert jax.tree.structure(made) == jax.tree.structure(like)
    pairs = zip(jax.tree.leaves(made), jax.tree.leaves(like), strict=True)
    assert all((leaf.shape, leaf.dtype) == (other.shape, other.dtype) for leaf, other in pairs)
    check_base(config, made, like)
    down = "layers/0/mlp/down/kernel" if listed else "layers/mlp/down/kernel"
    assert not is_quantised(to_paths(made)[down])
    assert not is_quantised(to_paths(made)["embedding/table"])


def test_integers_are_not_trained():
    config = config_with(train={"quantize_base": "int8", "trainable": "layers/mlp/up/kernel/.*"})
    with pytest.raises(UserError, match=r"names .*values, which are integers"):
        split_held(config, held(config))


def test_a_base_that_is_quantised_otherwise():
    config = config_with(lora={"rank": 2}, train={"quantize_base": "int4"})
    params = create_params(config.resolved_model, MESH, 0)
    like = base_of(config)
    with pytest.raises(UserError, match=r"'int4'.*has it plain"):
        check_base(config, params, like)
    quantised = quantise_params(params, MESH, Quantize(4, 8))
    with pytest.raises(UserError, match=r"gives layers/\S+ 1 scale.*has it int4 with 2 scale"):
        check_base(config, plain_base(config, quantised), like)


def test_a_loaded_base_becomes_plain_where_it_is_not_held_quantised():
    a, b = jnp.full((4, 1), 0.5), jnp.ones((1, 3))
    values, scale = jnp.ones((4, 3), jnp.int8), jnp.full((1, 3), 2.0, jnp.float16)
    params = {
        "layers": {
            "0": {"mlp": {"up": {"kernel": LowRank(jnp.ones((4, 3)), a, b, 2.0)}}},
            "1": {"mlp": {"up": {"kernel": Quantised(values, scale, 1)}}},
        }
    }
    plain = plain_base(config_with(), params)["layers"]
    np.testing.assert_array_equal(plain["0"]["mlp"]["up"]["kernel"], 2.0 * np.ones((4, 3)))
    np.testing.assert_array_equal(plain["1"]["mlp"]["up"]["kernel"], 2.0 * np.ones((4, 3)))
    config = config_with(lora={"rank": 1}, train={"quantize_base": "int8"})
    kept = plain_base(config, params)["layers"]
    assert is_quantised(kept["1"]["mlp"]["up"]["kernel"])


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_what_was_trained_takes_its_place(quantize):
    config = config_with(
        lora={"rank": 2}, train={"trainable": ".*norm/.*", "quantize_base": quantize}
    )
    like = held(config)
    trained, _ = split_held(config, like)
    joined = with_trained(base_of(config), trained)
    assert jax.tree.structure(joined) == jax.tree.structure(like)
    shape = operator.attrgetter("shape")
    assert jax.tree.map(shape, joined) == jax.tree.map(shape, like)
