"""A prefix by itself: what its encoder computes, its dtype, its dropout, its initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.models.params import bind, count_params, create_params, create_prefix
from glm_jax.models.prefix import dropped, is_prefix
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh

SIZES = {
    "vocab_size": 32,
    "num_layers": 3,
    "embed_dim": 16,
    "num_heads": 4,
    "num_kv_heads": 2,
    "position_encoding": "rotary",
    "prefix_length": 5,
}
PLAIN, PROJECTED = ModelConfig(**SIZES), ModelConfig(**SIZES, prefix_projection=7)


def params_of(config, seed=0):
    return create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed)


def test_a_plain_table_is_keys_then_values_of_each_layer():
    params = params_of(PLAIN)
    keys, values = bind(PLAIN, params).prefix()
    assert keys.shape == values.shape == (3, 5, 2, 4)
    table = np.asarray(params["prefix"]["table"])
    np.testing.assert_array_equal(keys, table[:, 0])
    np.testing.assert_array_equal(values, table[:, 1])


def test_a_projection_is_two_products_with_tanh_between_them():
    params = params_of(PROJECTED)
    leaves = {k: np.asarray(v, np.float64) for k, v in to_paths({"p": params["prefix"]}).items()}
    assert leaves["p/rows/table"].shape == (5, 2 * 3 * 2 * 4)
    hidden = np.tanh(leaves["p/rows/table"] @ leaves["p/up/kernel"] + leaves["p/up/bias"])
    rows = np.einsum("pf,flskh->lspkh", hidden, leaves["p/down/kernel"])
    rows += leaves["p/down/bias"][:, :, None]
    keys, values = bind(PROJECTED, params).prefix()
    np.testing.assert_allclose(keys, rows[:, 0], atol=1e-5)
    np.testing.assert_allclose(values, rows[:, 1], atol=1e-5)


def test_the_encoder_stays_float32_whatever_the_model_is():
    config = ModelConfig(**SIZES, prefix_projection=7, param_dtype="bfloat16")
    params = params_of(config)
    for path, leaf in to_paths(params).items():
        assert leaf.dtype == ("float32" if is_prefix(path) else "bfloat16"), path
    exact = bind(config, params).prefix()
    rounded = bind(config.resolved(ComputeConfig(dtype="bfloat16")), params).prefix()
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == jnp.bfloat16
        # Rounded once, at the end.
        np.testing.assert_array_equal(one.astype(jnp.bfloat16), other)


def test_initial_values_are_those_of_the_published_code():
    config = ModelConfig(**{**SIZES, "prefix_length": 200}, prefix_projection=400)
    prefix = to_paths(params_of(config)["prefix"])
    assert np.std(prefix["rows/table"]) == pytest.approx(1, rel=0.05)
    assert np.std(prefix["up/kernel"]) == pytest.approx((3 * 48) ** -0.5, rel=0.05)
    assert np.std(prefix["down/kernel"]) == pytest.approx((3 * 400) ** -0.5, rel=0.05)
    assert not np.any(prefix["up/bias"])
    table = ModelConfig(**{**SIZES, "prefix_length": 200})
    assert np.std(params_of(table)["prefix"]["table"]) == pytest.approx(1, rel=0.05)


def test_a_model_with_a_prefix_is_drawn_as_without_and_the_prefix_also_alone():
    params = params_of(PROJECTED, seed=3)
    bare = to_paths(params_of(ModelConfig(**{**SIZES, "prefix_length": 0}), seed=3))
    assert bare.keys() == {path for path in to_paths(params) if not is_prefix(path)}
    for path, leaf in bare.items():
        np.testing.assert_array_equal(leaf, to_paths(params)[path])
    alone = create_prefix(PROJECTED, make_mesh(MeshConfig(), jax.devices()[:1]), 3)
    jax.tree.map(np.testing.assert_array_equal, alone, params["prefix"])
    row = 2 * 3 * 2 * 4
    more = 5 * row + 7 * row + 7 + 7 * row + row
    assert (
        count_params(PROJECTED) - count_params(ModelConfig(**{**SIZES, "prefix_length": 0})) == more
    )


def test_each_row_of_a_batch_drops_its_own():
    prefix = (jnp.ones((50, 4, 25)), 2 * jnp.ones((50, 4, 25)))
    key = jax.random.key(0)
    assert dropped(prefix, 2, 0.1, None) is prefix
    assert dropped(prefix, 2, 0.0, key) is prefix
    assert dropped(None, 2, 0.1, key) is None
    k, v = map(np.asarray, dropped(prefix, 2, 0.1, key))
    assert k.shape == (2, 50, 4, 25)
    np.testing.assert_allclose(np.unique(k), [0, 1 / 0.9], rtol=1e-6)
    np.testing.assert_allclose(np.unique(v), [0, 2 / 0.9], rtol=1e-6)
    # 10,000 of each: 10 %, give or take four standard deviations.
    assert (k == 0).mean() == pytest.approx(0.1, abs=0.012)
    for one, other in ((k[0], k[1]), (k[0], v[0])):
        assert ((one == 0) != (other == 0)).mean() > 0.1


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_both_layouts_compute_the_same_with_dropout(rate):
    config = ModelConfig(
        **SIZES, prefix_projection=7, prefix_dropout_rate=rate, initializer_range=0.2
    )
    params, slots = params_of(config), np.arange(6, dtype=np.int32)[None]
    inputs = (slots, slots, 0 * slots, 0 * slots, slots + 1)

    def run(scan, key):
        resolved = config.resolved(ComputeConfig(scan_layers=scan))
        model = jax.jit(lambda params: bind(resolved, params)(*inputs, dropout_key=key))
        return np.asarray(model(params))

    key = jax.random.key(1)
    listed = run(False, key)
    np.testing.assert_allclose(listed, run(True, key), atol=2e-5)
    assert np.isfinite(listed).all()


def test_dropout_of_the_prefix_alone_changes_the_result():
    still = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0, "initializer_range": 0.2}
    slots, params = np.arange(6, dtype=np.int32)[None], params_of(PLAIN)

    def hidden(rate, key):
        config = ModelConfig(**SIZES, **still, prefix_dropout_rate=rate)
        assert config.has_dropout == (rate > 0)
        inputs = (slots, slots, 0 * slots, 0 * slots, slots + 1)
        return jax.jit(lambda params: bind(config, params)(*inputs, dropout_key=key))(params)

    without, with_dropout = hidden(0.5, None), hidden(0.5, jax.random.key(1))
    np.testing.assert_allclose(hidden(0.0, jax.random.key(1)), without, atol=1e-6)
    assert np.abs(with_dropout - without).max() > 0.01
