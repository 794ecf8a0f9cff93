"""The parts of a layer, by arithmetic that can be done by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.models.layers import (
    Embedding,
    GeluMlp,
    Identity,
    LayerNorm,
    Linear,
    RmsNorm,
    SwigluMlp,
    layer_norm,
    make_mlp,
    make_norm,
    residual_stddev,
    rms_norm,
)

KEY = jax.random.key(0)
SMALL = ModelConfig(vocab_size=6, num_layers=2, embed_dim=4, num_heads=2, mlp_dim=3).resolved()
# Large enough for five-sigma bounds on a standard deviation: 64 x 256 draws.
WIDE = ModelConfig(num_layers=8, embed_dim=64, num_heads=2, mlp_dim=256).resolved()


def close(found, expected, **tolerance):
    np.testing.assert_allclose(found, expected, **({"rtol": 1e-6, "atol": 1e-6} | tolerance))


def test_layer_norm():
    """1 2 3 6: mean 3, squares about it 4 1 0 9, their mean 3.5; with 0.5 more the root is 2."""
    x, scale, bias = jnp.array([[1.0, 2, 3, 6]]), jnp.array([1.0, 2, 1, 4]), jnp.arange(4.0)
    close(layer_norm(x, scale, bias, 0.5), [[-1, -1 + 1, 0 + 2, 6 + 3]])


def test_rms_norm():
    """1 7 5 5: mean of the squares 25; with 11 more the root is 6. No mean is taken away."""
    x, scale = jnp.array([[1.0, 7, 5, 5]]), jnp.array([6.0, 6, 3, -6])
    close(rms_norm(x, scale, 11.0), [[1, 7, 2.5, -5]])


def test_norms_compute_in_float32_and_give_what_they_got():
    """The mean of 256 and 258 is no bfloat16; in that dtype one of the two would be 0."""
    x = jnp.array([256, 258], jnp.bfloat16)
    ones, zeros = jnp.ones(2), jnp.zeros(2)
    y = layer_norm(x, ones, zeros, 0.0)
    assert y.dtype == jnp.bfloat16
    assert y.tolist() == [-1, 1]
    # 300^2 is beyond float16, whose mean of squares would be infinite and the result 0.
    y = rms_norm(jnp.array([300, -300], jnp.float16), ones, 0.0)
    assert y.dtype == jnp.float16
    assert y.tolist() == [1, -1]


def test_what_writes_into_the_residual_stream_starts_smaller():
    """0.02 / sqrt(2 * 24), as GLM and GPT-2 have it."""
    config = dataclasses.replace(WIDE, num_layers=24)
    assert residual_stddev(config) == pytest.approx(0.02 / math.sqrt(48))


def test_first_values():
    mlp = SwigluMlp(WIDE, key=KEY)
    kernels = {name: np.asarray(getattr(mlp, name).kernel[...]) for name in ("gate", "up", "down")}
    for name, stddev in (("gate", 0.02), ("up", 0.02), ("down", 0.02 / 4)):  # sqrt(2 * 8) = 4
        values = kernels[name]
        assert abs(values.mean()) < 5 * stddev / math.sqrt(values.size)
        assert abs(values.std() / stddev - 1) < 5 / math.sqrt(2 * values.size)
        assert not np.asarray(getattr(mlp, name).bias[...]).any()
    # Each draws from a key of its own.
    assert abs(np.corrcoef(kernels["gate"].ravel(), kernels["up"].ravel())[0, 1]) < 5 / 128
    again = SwigluMlp(WIDE, key=KEY)
    np.testing.assert_array_equal(again.up.kernel[...], kernels["up"])


@pytest.mark.parametrize(
    ("biases", "in_mlp"), [("all", True), ("qkv", False), ("none", False)], ids=lambda x: str(x)
)
def test_biases_are_where_the_config_has_them(biases, in_mlp):
    config = dataclasses.replace(SMALL, biases=biases)
    for activation in ("gelu", "swiglu"):
        mlp = make_mlp(dataclasses.replace(config, activation=activation), key=KEY)
        assert (mlp.up.bias is not None, mlp.down.bias is not None) == (in_mlp, in_mlp)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parameters_have_their_dtype(dtype):
    config = dataclasses.replace(SMALL, param_dtype=dtype)
    layer = Linear((4,), (3,), config, key=KEY, use_bias=True)
    norm, table = LayerNorm(config), Embedding(config, key=KEY)
    for param in (layer.kernel, layer.bias, norm.scale, norm.bias, table.table):
        assert param[...].dtype == dtype


def test_gelu_is_the_tanh_form():
    """gelu(1) = 0.8411920 by tanh (0.8413447 by erf), gelu(-1) = -0.1588080."""
    mlp = GeluMlp(dataclasses.replace(SMALL, embed_dim=2, mlp_dim=2), key=KEY)
    mlp.up.kernel[...] = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    mlp.up.bias[...] = jnp.array([0.0, -3.0])
    mlp.down.kernel[...] = jnp.array([[1.0, 0.0], [0.0, 10.0]])
    mlp.down.bias[...] = jnp.array([0.0, 1.0])
    close(mlp(jnp.array([[0.5, 2.0]])), [[0.8411920, 1 - 1.588080]])


def test_swiglu_is_silu_of_the_gate_times_up():
    """silu(1) = 1 / (1 + 1/e) = 0.7310586; times 3 * 0.5, times 2."""
    config = dataclasses.replace(SMALL, embed_dim=1, mlp_dim=1, biases="none")
    mlp = make_mlp(dataclasses.replace(config, activation="swiglu"), key=KEY)
    for name, weight in (("gate", 2.0), ("up", 3.0), ("down", 2.0)):
        getattr(mlp, name).kernel[...] = jnp.array([[weight]])
    close(mlp(jnp.array([[0.5]])), [[0.7310586 * 1.5 * 2]])


def test_norms_by_name():
    assert isinstance(make_norm(SMALL), LayerNorm)
    norm = make_norm(dataclasses.replace(SMALL, norm="rms_norm", norm_epsilon=11.0))
    assert isinstance(norm, RmsNorm)
    close(norm(jnp.array([1.0, 7, 5, 5])), np.array([1, 7, 5, 5]) / 6)
    x = jnp.arange(3.0)
    assert Identity()(x) is x


def test_a_table_is_looked_up_and_multiplied_with():
    table = Embedding(SMALL.with_compute(dtype="bfloat16"), key=KEY)
    table.table[...] = jnp.arange(24.0).reshape(6, 4)
    rows = table(jnp.array([[5, 0], [2, 2]]))
    assert rows.dtype == jnp.bfloat16
    assert rows[:, :, 0].tolist() == [[20, 0], [8, 8]]
    found = table.scorer()(jnp.array([[1.0, 0, 0, -1], [0, 2, 0, 0]], jnp.bfloat16))
    assert found.dtype == jnp.float32
    assert found.tolist() == [[-3] * 6, [2 + 8 * i for i in range(6)]]
