"""The parts of a layer: thin modules that hold parameters, over pure functions of arrays.

The key of each parameter's initial value is folded from the parameter's path. A model therefore has
the same values whether its layers are stacked or listed, and on any mesh.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.config.model import ResolvedModel
from glm_jax.models.seeds import fold_name, normal
from glm_jax.models.weights import look_up_tokens, multiply, scorer

Cache = TypeVar("Cache", bound="LayerCache")


@runtime_checkable
class LayerCache(Protocol):
    """The keys and values of one layer from earlier calls."""

    def append(self: Cache, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, Cache]:
        """Adds keys and values [B, T, K, H]; returns all, [B, S, K, H], and the new cache."""


def layer_norm(
    x: Float[jax.Array, "*shape D"],
    scale: Float[jax.Array, " D"],
    bias: Float[jax.Array, " D"],
    epsilon: float,
) -> Float[jax.Array, "*shape D"]:
    """Layer normalisation over the last axis in float32; the result has the dtype of x."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon)
    return (y * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


def rms_norm(
    x: Float[jax.Array, "*shape D"], scale: Float[jax.Array, " D"], epsilon: float
) -> Float[jax.Array, "*shape D"]:
    """RMS normalisation over the last axis in float32; the result has the dtype of x."""
    x32 = x.astype(jnp.float32)
    y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon)
    return (y * scale.astype(jnp.float32)).astype(x.dtype)


def residual_stddev(config: ResolvedModel) -> float:
    """Initial standard deviation of matrices that write into the residual stream."""
    return config.initializer_range / math.sqrt(2 * config.num_layers)


class LayerNorm(nnx.Module):
    """`layer_norm` with its scale and bias, [D] each."""

    def __init__(self, config: ResolvedModel):
        dtype = jnp.dtype(config.param_dtype)
        self.scale = nnx.Param(jnp.ones(config.embed_dim, dtype))
        self.bias = nnx.Param(jnp.zeros(config.embed_dim, dtype))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Float[jax.Array, "*shape D"]) -> Float[jax.Array, "*shape D"]:
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class RmsNorm(nnx.Module):
    """`rms_norm` with its scale [D]."""

    def __init__(self, config: ResolvedModel):
        self.scale = nnx.Param(jnp.ones(config.embed_dim, jnp.dtype(config.param_dtype)))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Float[jax.Array, "*shape D"]) -> Float[jax.Array, "*shape D"]:
        return rms_norm(x, self.scale[...], self.epsilon)


class Identity(nnx.Module):
    """Stands where a variant has no norm; returns its input."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def make_norm(config: ResolvedModel) -> nnx.Module:
    """The norm that `config.norm` names."""
    return {"layer_norm": LayerNorm, "rms_norm": RmsNorm}[config.norm](config)


class Linear(nnx.Module):
    """`multiply` by a kernel [*inputs, *outputs], with an optional bias [*outputs].

    Heads keep an axis of their own (a query kernel is [D, N, H]), so that they can be sharded
    without cutting through a head.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        config: ResolvedModel,
        *,
        key: jax.Array,
        use_bias: bool,
        stddev: float | None = None,
    ):
        stddev = config.initializer_range if stddev is None else stddev
        self.kernel = nnx.Param(normal(key, (*inputs, *outputs), stddev, config.param_dtype))
        bias = nnx.Param(jnp.zeros(outputs, jnp.dtype(config.param_dtype)))
        self.bias = bias if use_bias else None
        self.num_inputs = len(inputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        return multiply(x, self.kernel.get_value(), bias, self.num_inputs)


class Embedding(nnx.Module):
    """A table [V, D] with a row per id: the token embedding or, by its `scorer`, the LM head."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.table = nnx.Param(normal(key, shape, config.initializer_range, config.param_dtype))
        self.compute_dtype = config.compute.dtype

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[jax.Array, "B T D"]:
        """[B, T] ids -> [B, T, D], sharded as `look_up` says."""
        return look_up_tokens(self.table.get_value(), tokens, self.compute_dtype)

    def scorer(self) -> Callable[[jax.Array], jax.Array]:
        """The LM head, [..., D] -> float32 logits [..., V]; the table is cast and gathered once."""
        return scorer(self.table.get_value(), self.compute_dtype)


class GeluMlp(nnx.Module):
    """D -> F -> D with GELU in its tanh form between the two products."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.up, self.down = _up(config, key, "up"), _down(config, key)

    def __call__(self, x: Float[jax.Array, "*shape D"]) -> Float[jax.Array, "*shape D"]:
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


class SwigluMlp(nnx.Module):
    """A gated feed-forward, D -> F -> D: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.gate, self.up = _up(config, key, "gate"), _up(config, key, "up")
        self.down = _down(config, key)

    def __call__(self, x: Float[jax.Array, "*shape D"]) -> Float[jax.Array, "*shape D"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def make_mlp(config: ResolvedModel, *, key: jax.Array) -> nnx.Module:
    """The feed-forward module that `config.activation` names."""
    return {"gelu": GeluMlp, "swiglu": SwigluMlp}[config.activation](config, key=key)


def _up(config: ResolvedModel, key: jax.Array, name: str) -> Linear:
    return Linear(
        (config.embed_dim,),
        (config.mlp_dim,),
        config,
        key=fold_name(key, name),
        use_bias=config.biases == "all",
    )


def _down(config: ResolvedModel, key: jax.Array) -> Linear:
    return Linear(
        (config.mlp_dim,),
        (config.embed_dim,),
        config,
        key=fold_name(key, "down"),
        use_bias=config.biases == "all",
        stddev=residual_stddev(config),
    )
