"""The prefix of a model as a plain table."""

import jax
import numpy as np

from glm_jax.adapters.prefix import with_plain_prefix
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=32,
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    position_encoding="rotary",
    prefix_length=5,
    prefix_projection=7,
).resolved()


def params_of(config):
    return create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)


def test_the_table_is_what_the_encoder_makes():
    params = params_of(CONFIG)
    config, table = with_plain_prefix(CONFIG, params)
    assert (config.prefix_length, config.prefix_projection) == (5, None)
    assert set(table["prefix"]) == {"table"}
    assert table["layers"] is params["layers"]
    for one, other in zip(bind(config, table).prefix(), bind(CONFIG, params).prefix(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    # Once more there is nothing to do.
    assert with_plain_prefix(config, table) == (config, table)


def test_a_dtype_of_its_own():
    config, table = with_plain_prefix(CONFIG, params_of(CONFIG), "bfloat16")
    assert table["prefix"]["table"].dtype == "bfloat16"
    assert with_plain_prefix(config, table, "bfloat16")[1] is table


def test_a_model_without_a_prefix_is_itself():
    bare = CONFIG.with_prefix(ModelConfig()).resolved()
    params = params_of(bare)
    assert with_plain_prefix(bare, params) == (bare, params)
