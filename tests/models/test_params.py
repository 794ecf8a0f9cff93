import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.models.params import abstract_params, bind, count_params, create_params
from glm_jax.models.trees import (
    from_paths,
    is_stacked,
    stack_layers,
    to_paths,
    unstack_layers,
)
from glm_jax.models.weights import decay_mask
from tests.models.twelve_layers import CONFIG, STACKED, same


def test_stacked_and_listed_layers_draw_the_same(mesh, params):
    stacked = create_params(STACKED, mesh, seed=0)
    assert is_stacked(stacked)
    assert not is_stacked(params)
    assert same(unstack_layers(stacked), params)
    assert same(stack_layers(params), stacked)
    assert same(create_params(CONFIG, mesh, seed=0), stacked)
    for seed in (1, 2**32, 2**63):
        assert not same(create_params(CONFIG, mesh, seed=seed), stacked)


def test_the_constructor_draws_what_create_params_draws(params):
    from flax import nnx

    from glm_jax.models.transformer import Transformer

    model = Transformer(CONFIG, rngs=nnx.Rngs(params=jax.random.key(0)))
    ours = np.asarray(model.layers[10].mlp.up.kernel[...])
    theirs = params["layers"]["10"]["mlp"]["up"]["kernel"]
    # Not compiled as one, it rounds once more.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_initial_spread_is_the_published_one(params):
    def std(*path):
        leaf = params
        for name in path:
            leaf = leaf[name]
        return float(np.std(leaf))

    residual = 0.02 / np.sqrt(2 * 12)
    for index in ("0", "11"):
        for name in ("query", "key", "value"):
            assert std("layers", index, "attention", name, "kernel") == pytest.approx(0.02, rel=0.1)
        assert std("layers", index, "mlp", "up", "kernel") == pytest.approx(0.02, rel=0.1)
        assert std("layers", index, "attention", "out", "kernel") == pytest.approx(
            residual, rel=0.1
        )
        assert std("layers", index, "mlp", "down", "kernel") == pytest.approx(residual, rel=0.1)
    for path in (("embedding", "table"), ("positions", "table"), ("positions", "block_table")):
        assert std(*path) == pytest.approx(0.02, rel=0.15)
    for path, leaf in to_paths(params).items():
        if path.endswith("bias"):
            assert not np.asarray(leaf).any()
        if path.endswith("scale"):
            assert (np.asarray(leaf) == 1).all()


def test_no_two_matrices_are_drawn_alike(params):
    kernels = [np.asarray(x).ravel()[:64] for p, x in to_paths(params).items() if "kernel" in p]
    kernels += [np.asarray(params["positions"][n]).ravel()[:64] for n in ("table", "block_table")]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_bind_puts_every_layer_in_its_place(params):
    model = bind(CONFIG, params)
    for index in range(12):
        ours = model.layers[index].attention.query.kernel[...]
        np.testing.assert_array_equal(
            ours, params["layers"][str(index)]["attention"]["query"]["kernel"]
        )


def test_bind_names_what_does_not_fit(params):
    broken = from_paths({p: x for p, x in to_paths(params).items() if p != "final_norm/bias"})
    with pytest.raises(ValueError, match="final_norm/bias"):
        bind(CONFIG, broken)


@pytest.mark.parametrize("listed", [False, True])
def test_abstract_params_are_those_created(mesh, params, listed):
    created = to_paths(params if listed else create_params(CONFIG, mesh, seed=0))
    abstract = to_paths(abstract_params(CONFIG, mesh, listed=listed))
    assert abstract.keys() == created.keys()
    for path, leaf in created.items():
        assert (leaf.shape, leaf.dtype) == (abstract[path].shape, abstract[path].dtype)
        assert leaf.sharding.is_equivalent_to(abstract[path].sharding, leaf.ndim)


def test_parameters_have_the_dtype_asked_for(mesh):
    config = dataclasses.replace(CONFIG, num_layers=1, param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(create_params(config, mesh, 0))} == {
        jnp.dtype("bfloat16")
    }


def test_count_and_paths(params):
    assert count_params(CONFIG) == count_params(STACKED)
    assert count_params(CONFIG) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert same(from_paths(to_paths(params)), params)


def test_decay_spares_norms_and_biases_alone(params):
    for path, decays in to_paths(decay_mask(params)).items():
        assert decays == (path.rpartition("/")[2] in ("kernel", "table", "block_table"))
