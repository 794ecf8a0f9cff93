"""A trained prefix: keys and values that every query of every layer sees beside its interval.

P-Tuning v2 (arXiv:2110.07602) as ChatGLM has it. Nothing in it depends on the input:

    a plain table     table [L, 2, P, K, H]                                     keys, then values
    a projection      rows [P, E] --up--> [P, F] --tanh, down--> [P, L, 2, K, H]

Keys are used as they are, without a rotation, and the tokens' positions do not move. Both forms are
computed in float32; then they have the dtype of the activations.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from glm_jax.attention.dropout import dropout
from glm_jax.config.model import ResolvedModel
from glm_jax.models.products import linear
from glm_jax.models.seeds import fold_name, normal
from glm_jax.sharding.mesh import constrain

# Of one layer [P, K, H] each, of all layers [L, P, K, H].
KeyValue = tuple[jax.Array, jax.Array]


class Projected(NamedTuple):
    """What a projection makes the prefix of, float32.

    Attributes:
      rows: [P, E], the table.
      up, up_bias: [E, F] and [F], of the hidden layer.
      down, down_bias: [F, L, 2, K, H] and [L, 2, K, H].
    """

    rows: jax.Array
    up: jax.Array
    up_bias: jax.Array
    down: jax.Array
    down_bias: jax.Array

    def table(self) -> Float[jax.Array, "L 2 P K H"]:
        """The plain table that it stands for."""
        hidden = jnp.tanh(linear(self.rows, self.up, self.up_bias))
        return jnp.moveaxis(linear(hidden, self.down, self.down_bias), 0, 2)


class Rows(nnx.Module):
    """The table [P, E] of which a projection makes the prefix."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        shape = (config.prefix_length, config.prefix_embed_dim or config.prefix_row)
        self.table = nnx.Param(normal(key, shape, 1.0, "float32"))


class Affine(nnx.Module):
    """A matrix [*inputs, *outputs] and a bias [*outputs], float32."""

    def __init__(self, inputs: int, outputs: tuple[int, ...], *, key: jax.Array):
        stddev = 1 / math.sqrt(3 * inputs)
        self.kernel = nnx.Param(normal(key, (inputs, *outputs), stddev, "float32"))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))


class Prefix(nnx.Module):
    """The parameters of a prefix, float32; called, its keys and values in all layers.

    Tables begin as in the published code with a standard deviation of 1, and matrices with one of
    1 / sqrt(3 inputs), which is that of its uniform draws.
    """

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        heads = (config.num_kv_heads, config.head_dim)
        self.compute_dtype, width = config.compute.dtype, config.prefix_projection
        self.is_projected = width is not None
        if width is None:
            shape = (config.num_layers, 2, config.prefix_length, *heads)
            self.table = nnx.Param(normal(fold_name(key, "table"), shape, 1.0, "float32"))
            return
        self.rows = Rows(config, key=fold_name(key, "rows"))
        self.up = Affine(self.rows.table.shape[1], (width,), key=fold_name(key, "up"))
        outputs = (config.num_layers, 2, *heads)
        self.down = Affine(width, outputs, key=fold_name(key, "down"))

    def __call__(self) -> KeyValue:
        """The keys and the values, [L, P, K, H] each."""
        if self.is_projected:
            matrices = [x for part in (self.up, self.down) for x in (part.kernel, part.bias)]
            table = Projected(*(x[...] for x in (self.rows.table, *matrices))).table()
        else:
            table = self.table[...]
        table = constrain(table, None, None, None, "tensor", None).astype(self.compute_dtype)
        return table[:, 0], table[:, 1]


def is_prefix(name: str) -> bool:
    """Whether a parameter is one of a prefix, which is float32 whatever the others are."""
    return name.startswith("prefix/")


def dropped(
    prefix: KeyValue | None, batch_size: int, rate: float, key: jax.Array | None
) -> tuple[Float[jax.Array, "*B P K H"], Float[jax.Array, "*B P K H"]] | None:
    """A layer's prefix for the rows of a batch, with dropout of its own in each row.

    Returns:
      The prefix itself, [P, K, H], without dropout; else [B, P, K, H].
    """
    if prefix is None or key is None or rate == 0.0:
        return prefix
    keys = jax.random.split(jax.random.fold_in(key, 2))
    wide = (jnp.broadcast_to(x, (batch_size, *x.shape)) for x in prefix)
    k, v = (dropout(x, rate, one) for x, one in zip(wide, keys, strict=True))
    return k, v
