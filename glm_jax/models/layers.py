"""The parts of a layer: thin modules that hold parameters, over pure functions of arrays.

The key of each parameter's initial value is folded from the parameter's path. A model therefore has
the same values whether its layers are stacked or listed, and on any mesh.
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from glm_jax.config.model import ModelConfig
from glm_jax.sharding.mesh import auto_axes, axis_size, constrain, dividing, slots_are_split
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
    """RMS normalisation over the last axis in float32; the result has the dtype of x."""
    x32 = x.astype(jnp.float32)
    y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + epsilon)
    return (y * scale.astype(jnp.float32)).astype(x.dtype)


def linear(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, num_inputs: int = 1
) -> jax.Array:
    """Contracts the last `num_inputs` axes of x with the first of the kernel, in the dtype of x.

    Axes are merged into a product of two matrices, since contractions over several axes are slower
    on CPU, above all backward. An axis that is sharded comes first among those it is merged with,
    so it stays sharded. [B, T] are not merged if slots are sharded: every device would compute all
    of T.
    """
    lead, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[num_inputs:]
    matrix = kernel.astype(x.dtype).reshape(math.prod(kernel.shape[:num_inputs]), -1)
    rows = lead if slots_are_split() else (-1,)
    y = x.reshape(*rows, matrix.shape[0]) @ matrix
    if bias is not None:
        y = y + bias.astype(x.dtype).reshape(-1)
    return y.reshape(*lead, *outputs)


def residual_stddev(config: ModelConfig) -> float:
    """Initial standard deviation of matrices that write into the residual stream."""
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
    """Stands where a variant has no norm; returns its input."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def make_norm(config: ModelConfig) -> nnx.Module:
    """The norm that `config.norm` names."""
    return {"layer_norm": LayerNorm, "rms_norm": RmsNorm}[config.norm](config)


class Linear(nnx.Module):
    """`linear` with its kernel [*inputs, *outputs] and an optional bias [*outputs].

    Heads keep an axis of their own (a query kernel is [D, N, H]), so that they can be sharded
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
    """Looks up rows of a table [R, D] by ids [B, T] -> [B, T, D], with D sharded over "fsdp".

    The table stays sharded: every device looks up its slice of D for the ids of all devices. The
    slices are then exchanged (`glm_jax.sharding.mesh.constrain_rows`), once for the sum of all
    tables. Gathering the table instead would move R x D values for B x T rows.
    """
    ids = constrain(ids, "data", "sequence")
    return constrain(rows_of(table, ids).astype(dtype), "data", "sequence", "fsdp")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rows_of(table: jax.Array, ids: jax.Array, partial: bool = False) -> jax.Array:
    """Rows of a table, [R, D] by ids [..] -> [.., D]. The gradient is summed in float32.

        ids 2 0 2, gradients a b c      row 2 of the table gets a + c, row 0 gets b, the others 0

    A common token has thousands of terms in a batch, the first block positions more: summed in
    bfloat16 (8 bits), all but the first few hundred are lost. On a GPU equal ids also wait for each
    other: of a step of 8,192 tokens, 98 ms on an H100, two such sums took 92. In float32, which has
    an addition of its own in memory, the whole step takes 9.

    Args:
      partial: ids outside of 0..R - 1 are allowed; their rows are 0 and get no gradient.
    """
    if partial:
        return table.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    return table[ids]


def _rows_forward(table: jax.Array, ids: jax.Array, partial: bool) -> tuple[jax.Array, tuple]:
    return rows_of(table, ids, partial), (table, ids)


def _rows_backward(partial: bool, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, None]:
    table, ids = saved
    total, gradient = jnp.zeros(table.shape, jnp.float32), gradient.astype(jnp.float32)
    if partial:
        total = total.at[ids].add(gradient, mode="drop", wrap_negative_indices=False)
    else:
        total = total.at[ids].add(gradient)
    return total.astype(table.dtype), None


rows_of.defvjp(_rows_forward, _rows_backward)


def look_up_tokens(table: jax.Array, ids: jax.Array, dtype: jnp.dtype | str) -> jax.Array:
    """`look_up` in a table [V, D] whose V may be sharded over "tensor".

    If both V and D are sharded, each device looks up the rows that it holds, and an all-reduce adds
    them up:

        V = 4 over 2 devices, ids 3 0      device 0, rows 0 1    [  0  row0 ]
                                           device 1, rows 2 3    [ row3  0  ]   sum  [row3 row0]

    This is manually sharded (`jax.shard_map`). XLA's partitioner does the same, but aborts if the
    lookup stands inside a `jax.shard_map` over "data" (docs/decisions/018).
    """
    if not (axis_size("fsdp") > 1 and axis_size("tensor") > 1):
        return look_up(table, ids, dtype)
    mesh = jax.sharding.get_abstract_mesh()
    split = [
        dividing(axis, n, mesh) for axis, n in zip(("data", "sequence"), ids.shape, strict=True)
    ]

    def of_shard(table: jax.Array, ids: jax.Array) -> jax.Array:
        local = ids - jax.lax.axis_index("tensor") * len(table)
        return jax.lax.psum(rows_of(table, local, True).astype(dtype), "tensor")

    return jax.shard_map(
        of_shard,
        in_specs=(param_spec("embedding/table", table.shape), PartitionSpec(*split)),
        out_specs=PartitionSpec(*split, "fsdp"),
        axis_names=set(auto_axes()),
    )(table, ids)


class Embedding(nnx.Module):
    """A table [V, D] with a row per id: the token embedding or, by its `scorer`, the LM head."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        shape = (config.vocab_size, config.embed_dim)
        self.table = nnx.Param(normal(key, shape, config.initializer_range, config))
        self.compute_dtype = config.compute_dtype

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T] ids -> [B, T, D], sharded as `look_up` says."""
        return look_up_tokens(self.table[...], tokens, self.compute_dtype)

    def scorer(self) -> Callable[[jax.Array], jax.Array]:
        """The LM head, [..., D] -> float32 logits [..., V]; the table is cast and gathered once.

        It is gathered as [D, V]: there the slices of D are concatenated. In [V, D] they would have
        to be interleaved, which copies all V x D values.
        """
        table = self.table[...].astype(self.compute_dtype)
        matrix = whole_over("fsdp", table.T, param_spec("output/table", table.shape)[::-1])

        return lambda hidden: scores(hidden, matrix)


@jax.custom_vjp
def scores(hidden: jax.Array, matrix: jax.Array) -> jax.Array:
    """hidden [..., D] times a matrix [D, V]: float32 logits [..., V].

    Backward, the gradient of the logits is rounded to the dtype of `hidden` before it is
    multiplied. JAX alone would compute both products in float32, and that of the matrix has V x D
    values.
    """
    return jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)


def _scores_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, matrix = saved
    gradient = gradient.astype(hidden.dtype)
    return gradient @ matrix.T, jnp.einsum("...d,...v->dv", hidden, gradient)


scores.defvjp(lambda hidden, matrix: (scores(hidden, matrix), (hidden, matrix)), _scores_backward)


class GeluMlp(nnx.Module):
    """D -> F -> D with GELU in its tanh form between the two products."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.up, self.down = _up(config, key, "up"), _down(config, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.gelu(self.up(x), approximate=True))


class SwigluMlp(nnx.Module):
    """A gated feed-forward, D -> F -> D: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, *, key: jax.Array):
        self.gate, self.up = _up(config, key, "gate"), _up(config, key, "up")
        self.down = _down(config, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def make_mlp(config: ModelConfig, *, key: jax.Array) -> nnx.Module:
    """The feed-forward module that `config.activation` names."""
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
