"""The parts of a layer: thin modules that hold parameters, over pure functions of arrays.

Every parameter draws its initial value from a key folded from its path, so that a model is the same
whether its layers are stacked or listed and whatever mesh it is created on.
"""

import math
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glm_jax.config import ModelConfig


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """Derives the key of the child called `name`."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Layer normalisation over the last axis in float32; the result has the dtype of x."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon)
    return (y * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, num_inputs: int = 1) -> jax.Array:
    """Contracts the last `num_inputs` axes of x with the first of the kernel, in the dtype of x.

    As a product of two matrices: contractions over more axes are slower on CPU, backwards above
    all. Axes that are split over devices come first among those merged, so they stay split.
    """
    lead, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[num_inputs:]
    matrix = kernel.astype(x.dtype).reshape(math.prod(kernel.shape[:num_inputs]), -1)
    y = x.reshape(-1, matrix.shape[0]) @ matrix + bias.astype(x.dtype).reshape(-1)
    return y.reshape(*lead, *outputs)


def residual_stddev(config: ModelConfig) -> float:
    """Standard deviation of matrices that write into the residual stream."""
    return config.initializer_range / math.sqrt(2 * config.num_layers)


class LayerNorm(nnx.Module):
    """`layer_norm` with its scale and bias, [D] each."""

    def __init__(self, config: ModelConfig):
        dtype = jnp.dtype(config.param_dtype)
        self.scale = nnx.Param(jnp.ones(config.embed_dim, dtype))
        self.bias = nnx.Param(jnp.zeros(config.embed_dim, dtype))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class Linear(nnx.Module):
    """`linear` with its kernel [*inputs, *outputs] and bias [*outputs].

    Heads keep an axis of their own (a query kernel is [D, N, H]): they can be split over devices
    without cutting through a head.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        config: ModelConfig,
        *,
        key: jax.Array,
        stddev: float | None = None,
    ):
        stddev = config.initializer_range if stddev is None else stddev
        self.kernel = nnx.Param(normal(key, (*inputs, *outputs), stddev, config))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.dtype(config.param_dtype)))
        self.num_inputs = len(inputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return linear(x, self.kernel[...], self.bias[...], self.num_inputs)


class Embedding(nnx.Module):
    """The word table [V, D], which is also the output matrix."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.table = nnx.Param(normal(key, shape, config.initializer_range, config))
        self.compute_dtype = config.compute_dtype

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.table[...][tokens].astype(self.compute_dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Scores of every id, [..., D] -> float32 [..., V]."""
        table = self.table[...].astype(hidden.dtype)
        return jnp.matmul(hidden, table.T, preferred_element_type=jnp.float32)


class Mlp(nnx.Module):
    """D -> F -> D with the tanh form of GELU between."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        width, hidden = (config.embed_dim,), (config.mlp_dim or 4 * config.embed_dim,)
        self.up = Linear(width, hidden, config, key=fold_name(key, "up"))
        self.down = Linear(
            hidden, width, config, key=fold_name(key, "down"), stddev=residual_stddev(config)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


def normal(key: jax.Array, shape: Sequence[int], stddev: float, config: ModelConfig) -> jax.Array:
    """Draws N(0, stddev) in float32 and stores it in the parameters' dtype."""
    values = stddev * jax.random.normal(key, tuple(shape), jnp.float32)
    return values.astype(config.param_dtype)
