"""The parts of a layer: thin modules that hold parameters, over pure functions of arrays.

Every parameter draws its initial value from a key folded from its path, so that a model is the same
whether its layers are stacked or listed and whatever mesh it is created on.
"""

import math
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from glm_jax.config.model import ModelConfig
from glm_jax.sharding.mesh import auto_axes, axis_size, constrain, dividing, places_are_split
from glm_jax.sharding.rules import param_spec, whole_over


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


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """Division by the root mean square over the last axis, in float32; the result is like x."""
    x32 = x.astype(jnp.float32)
    y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon)
    return (y * scale.astype(jnp.float32)).astype(x.dtype)


def linear(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, num_inputs: int = 1
) -> jax.Array:
    """Contracts the last `num_inputs` axes of x with the first of the kernel, in the dtype of x.

    As a product of two matrices: contractions over more axes are slower on CPU, backwards above
    all. Axes that are split over devices come first among those merged, so they stay split. Where
    places are split too, [B, T] cannot become one axis: every device would compute all of T.
    """
    lead, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[num_inputs:]
    matrix = kernel.astype(x.dtype).reshape(math.prod(kernel.shape[:num_inputs]), -1)
    rows = lead if places_are_split() else (-1,)
    y = x.reshape(*rows, matrix.shape[0]) @ matrix
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape(-1)
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


class RmsNorm(nnx.Module):
    """`rms_norm` with its scale [D]."""

    def __init__(self, config: ModelConfig):
        self.scale = nnx.Param(jnp.ones(config.embed_dim, jnp.dtype(config.param_dtype)))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.scale[...], self.epsilon)


class Identity(nnx.Module):
    """Where a variant has nothing."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def make_norm(config: ModelConfig) -> nnx.Module:
    """The norm that `config.norm` names."""
    return {"layer_norm": LayerNorm, "rms_norm": RmsNorm}[config.norm](config)


class Linear(nnx.Module):
    """`linear` with its kernel [*inputs, *outputs] and, where there is one, bias [*outputs].

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
        use_bias: bool,
        stddev: float | None = None,
    ):
        stddev = config.initializer_range if stddev is None else stddev
        self.kernel = nnx.Param(normal(key, (*inputs, *outputs), stddev, config))
        bias = nnx.Param(jnp.zeros(outputs, jnp.dtype(config.param_dtype)))
        self.bias = bias if use_bias else None
        self.num_inputs = len(inputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.bias is None else self.bias[...]
        return linear(x, self.kernel[...], bias, self.num_inputs)


def look_up(table: jax.Array, ids: jax.Array, dtype: jnp.dtype | str) -> jax.Array:
    """Rows of a table [R, D] by their ids [B, T]: [B, T, D], D split over "fsdp".

    The table stays split: every device looks up its part of D for the ids of all, and the parts are
    exchanged (`glm_jax.sharding.mesh.constrain_rows`), once for the sum of all tables. Gathering a
    table would move R x D numbers for B x T rows.
    """
    ids = constrain(ids, "data", "sequence")
    return constrain(table[ids].astype(dtype), "data", "sequence", "fsdp")


def look_up_tokens(table: jax.Array, ids: jax.Array, dtype: jnp.dtype | str) -> jax.Array:
    """`look_up` in a table [V, D] whose V may be split over "tensor".

    Where both are split each device looks up what it holds, and the rows are summed:

        V = 4 over 2 devices, ids 3 0      device 0, rows 0 1    [  0  row0 ]
                                           device 1, rows 2 3    [ row3  0  ]   sum  [row3 row0]

    By hand: XLA's partitioner does the same, but aborts where the lookup stands inside a
    `jax.shard_map` over "data" (docs/decisions/018).
    """
    if not (axis_size("fsdp") > 1 and axis_size("tensor") > 1):
        return look_up(table, ids, dtype)
    mesh = jax.sharding.get_abstract_mesh()
    split = [
        dividing(axis, n, mesh) for axis, n in zip(("data", "sequence"), ids.shape, strict=True)
    ]

    def part(table: jax.Array, ids: jax.Array) -> jax.Array:
        local = ids - jax.lax.axis_index("tensor") * len(table)
        found = table.at[local].get(mode="fill", fill_value=0, wrap_negative_indices=False)
        return jax.lax.psum(found.astype(dtype), "tensor")

    return jax.shard_map(
        part,
        in_specs=(param_spec("embedding/table", table.shape), PartitionSpec(*split)),
        out_specs=PartitionSpec(*split, "fsdp"),
        axis_names=set(auto_axes()),
    )(table, ids)


class Embedding(nnx.Module):
    """A table [V, D] with a row for every id: looked up for inputs, multiplied with for scores."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.table = nnx.Param(normal(key, shape, config.initializer_range, config))
        self.compute_dtype = config.compute_dtype

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T] ids -> [B, T, D], split as `look_up` says."""
        return look_up_tokens(self.table[...], tokens, self.compute_dtype)

    def scorer(self) -> Callable[[jax.Array], jax.Array]:
        """Scores of every id, [..., D] -> float32 [..., V]; the table is cast and gathered once.

        It is gathered as [D, V]: parts of D then come one behind the other, where in [V, D] they
        would have to be put between each other, a copy of V x D numbers.
        """
        table = self.table[...].astype(self.compute_dtype)
        matrix = whole_over("fsdp", table.T, param_spec("output/table", table.shape)[::-1])

        return lambda hidden: scores(hidden, matrix)


@jax.custom_vjp
def scores(hidden: jax.Array, matrix: jax.Array) -> jax.Array:
    """hidden [..., D] times a matrix [D, V]: float32 [..., V].

    The gradient that comes back is rounded to the dtype of `hidden` before it is multiplied: left
    to itself JAX computes both products in float32, and the one for the matrix is V x D numbers.
    """
    return jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)


def _scores_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, matrix = saved
    gradient = gradient.astype(hidden.dtype)
    return gradient @ matrix.T, jnp.einsum("...d,...v->dv", hidden, gradient)


scores.defvjp(lambda hidden, matrix: (scores(hidden, matrix), (hidden, matrix)), _scores_backward)


class GeluMlp(nnx.Module):
    """D -> F -> D with the tanh form of GELU between."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.up, self.down = _up(config, key, "up"), _down(config, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


class SwigluMlp(nnx.Module):
    """Twice D -> F, one the gate of the other, then F -> D: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.gate, self.up = _up(config, key, "gate"), _up(config, key, "up")
        self.down = _down(config, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def make_mlp(config: ModelConfig, *, key: jax.Array) -> nnx.Module:
    """The feed-forward part that `config.activation` names."""
    return {"gelu": GeluMlp, "swiglu": SwigluMlp}[config.activation](config, key=key)


def _up(config: ModelConfig, key: jax.Array, name: str) -> Linear:
    return Linear(
        (config.embed_dim,),
        (config.mlp_dim or 4 * config.embed_dim,),
        config,
        key=fold_name(key, name),
        use_bias=config.biases == "all",
    )


def _down(config: ModelConfig, key: jax.Array) -> Linear:
    return Linear(
        (config.mlp_dim or 4 * config.embed_dim,),
        (config.embed_dim,),
        config,
        key=fold_name(key, "down"),
        use_bias=config.biases == "all",
        stddev=residual_stddev(config),
    )


def normal(key: jax.Array, shape: Sequence[int], stddev: float, config: ModelConfig) -> jax.Array:
    """Draws N(0, stddev) in float32 and stores it in the parameters' dtype."""
    values = stddev * jax.random.normal(key, tuple(shape), jnp.float32)
    return values.astype(config.param_dtype)
