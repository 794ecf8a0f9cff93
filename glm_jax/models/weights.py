"""How a matrix of parameters becomes the weight that a layer computes with.

    float32, sharded over "fsdp"  --cast-->  compute_dtype  --gather-->  whole over "fsdp"

Casting before gathering halves the bytes that travel. Inside a scan over layers one layer at a time
is whole. The gradient takes the same way back: it is reduced over devices in compute_dtype. For a
plain float32 matrix it is then cast to float32. For a `Master` it stays in compute_dtype, so that a
training step never holds float32 gradients of all layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.config.model import ModelConfig
from glm_jax.sharding.rules import param_spec, path_name, whole_over


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Master:
    """A matrix in float32 whose gradient is taken in compute_dtype.

    Attributes:
      value: float32, the copy that the optimizer updates; it gets no gradient.
      site: zeros of the same shape in compute_dtype; the gradient is taken with respect to them.
    """

    value: jax.Array
    site: jax.Array

    def used(self) -> jax.Array:
        """The value cast to the dtype of `site`; its gradient arrives at `site`."""
        return _cast(self.value, self.site)


@jax.custom_vjp
def _cast(value: jax.Array, site: jax.Array) -> jax.Array:
    return value.astype(site.dtype)


def _cast_backward(value: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(value), gradient


_cast.defvjp(lambda value, site: (value.astype(site.dtype), value), _cast_backward)


def is_master(leaf: Any) -> bool:
    """Whether a node is a `Master`; for `is_leaf` of jax.tree."""
    return isinstance(leaf, Master)


def is_matrix(name: str) -> bool:
    """Whether a parameter multiplies activations; norms and biases are added in their own dtype."""
    return name.rsplit("/", 1)[-1] in ("kernel", "table", "block_table")


def decay_mask(params: Any) -> Any:
    """True where weight decay applies: everything but biases and the scales of norms.

    Token and position embeddings do decay, as in the published code.
    """
    return jax.tree.map_with_path(lambda path, _: is_matrix(path_name(path)), params)


def settle(params: Any) -> Any:
    """Replaces every `Master` of a tree by `Master.used()`."""
    return jax.tree.map(lambda x: x.used() if is_master(x) else x, params, is_leaf=is_master)


def as_used(state: Any, config: ModelConfig) -> Any:
    """The parameters of one layer, with its matrices cast and gathered.

    Args:
      state: an nnx state of one `Layer`, with paths like attention/query/kernel.
      config: its compute_dtype is read.
    """

    def prepare(path: tuple, leaf: Any) -> Any:
        name = path_name(tuple(key for key in path if isinstance(key, jax.tree_util.DictKey)))
        if not is_matrix(name):
            return leaf
        weight = leaf.used() if is_master(leaf) else leaf.astype(config.compute_dtype)
        return whole_over("fsdp", weight, param_spec(f"layers/0/{name}", weight.shape))

    return jax.tree.map_with_path(prepare, state, is_leaf=is_master)
