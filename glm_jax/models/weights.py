"""How a matrix of parameters becomes what a layer computes with.

    float32, split over "fsdp"  --cast-->  compute_dtype  --gather-->  whole over "fsdp"

Cast before gathered, half the bytes travel; inside a scan over layers, one layer at a time is
whole. The gradient goes the same way back. Of a plain float32 matrix it ends as float32; of a
`Master` it stays in compute_dtype, as it came out of the product and was summed over devices, so a
training step never holds float32 gradients of all layers (what travels is compute_dtype either
way).
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
    """A matrix whose gradient is taken in a narrower dtype.

    Attributes:
      value: float32, what the optimizer keeps; gets no gradient.
      site: zeros of the same shape in compute_dtype; what the gradient is taken of.
    """

    value: jax.Array
    site: jax.Array

    def used(self) -> jax.Array:
        """The value in the dtype of the site, whose gradient it passes on."""
        return _cast(self.value, self.site)


@jax.custom_vjp
def _cast(value: jax.Array, site: jax.Array) -> jax.Array:
    return value.astype(site.dtype)


def _cast_backward(value: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(value), gradient


_cast.defvjp(lambda value, site: (value.astype(site.dtype), value), _cast_backward)


def is_master(leaf: Any) -> bool:
    """For `is_leaf` of jax.tree."""
    return isinstance(leaf, Master)


def is_matrix(name: str) -> bool:
    """Whether a parameter multiplies activations; norms and biases are added in their own dtype."""
    return name.rsplit("/", 1)[-1] in ("kernel", "table", "block_table")


def settle(params: Any) -> Any:
    """Every `Master` of a tree replaced by what it is used as."""
    return jax.tree.map(lambda x: x.used() if is_master(x) else x, params, is_leaf=is_master)


def as_used(state: Any, config: ModelConfig) -> Any:
    """The parameters of one layer, cast and gathered.

    Args:
      state: an nnx state of one `Layer`: paths like attention/query/kernel.
      config: for compute_dtype.
    """

    def prepare(path: tuple, leaf: Any) -> Any:
        name = path_name(tuple(key for key in path if isinstance(key, jax.tree_util.DictKey)))
        if not is_matrix(name):
            return leaf
        weight = leaf.used() if is_master(leaf) else leaf.astype(config.compute_dtype)
        return whole_over("fsdp", weight, param_spec(f"layers/0/{name}", weight.shape))

    return jax.tree.map_with_path(prepare, state, is_leaf=is_master)
