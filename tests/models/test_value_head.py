"""The value head: a scalar per slot, a parameter of its own, kept in checkpoints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.models.params import bind, create_params
from glm_jax.models.trees import cast, to_paths
from glm_jax.models.value_head import NAME, is_value_head
from glm_jax.models.weights import decay_mask, is_matrix
from glm_jax.sharding.mesh import make_mesh

PLAIN = ModelConfig(
    vocab_size=16, num_layers=1, embed_dim=8, num_heads=2, max_positions=8, param_dtype="bfloat16"
)
CONFIG = dataclasses.replace(PLAIN, value_head=True)


@pytest.fixture(scope="module")
def params():
    return create_params(CONFIG.resolved(), make_mesh(MeshConfig(), jax.devices()[:1]), seed=3)


def test_values_are_products_with_one_float32_vector(params):
    vector = params[NAME]["vector"]
    assert (vector.shape, vector.dtype) == ((8,), jnp.float32)
    assert 0.005 < float(jnp.std(vector)) < 0.05  # initializer_range 0.02
    hidden = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    found = bind(CONFIG.resolved(), params).values(jnp.asarray(hidden))
    np.testing.assert_allclose(found, hidden @ np.asarray(vector), rtol=1e-5)


def test_it_is_no_matrix_and_stays_in_float32(params):
    assert [name for name in to_paths(params) if is_value_head(name)] == [f"{NAME}/vector"]
    assert not is_matrix(f"{NAME}/vector")
    assert not decay_mask(params)[NAME]["vector"]
    assert cast(params, "float16")[NAME]["vector"].dtype == jnp.float32


def test_the_other_parameters_are_those_of_a_model_without(params):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    without = create_params(PLAIN.resolved(), mesh, seed=3)
    assert NAME not in without
    rest = {name: leaf for name, leaf in params.items() if name != NAME}
    jax.tree.map(np.testing.assert_array_equal, rest, without)
    with pytest.raises(UserError, match=r"the model has no value head; set model\.value_head=True"):
        bind(PLAIN.resolved(), without).values(jnp.zeros((1, 8)))


def test_a_checkpoint_keeps_it_and_a_published_format_refuses_it(params, tmp_path):
    lm = glm_jax.LanguageModel(CONFIG, params)
    lm.save(tmp_path / "orbax", format="orbax")
    again = glm_jax.load(tmp_path / "orbax")
    assert again.config.value_head
    np.testing.assert_array_equal(again.params[NAME]["vector"], params[NAME]["vector"])
    with pytest.raises(UserError, match=r"has no value head \(model.value_head=True\)"):
        lm.save(tmp_path / "published")
