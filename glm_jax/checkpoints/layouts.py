"""Layers stacked in one array or listed, as a checkpoint has them and as a model wants them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.config import Config
from glm_jax.models.params import stack_layers, unstack_layers


def own_copy(tree: Any) -> Any:
    """A copy that shares no memory with `tree`, where saving would share it.

    On CPU an array's "transfer" to the host is the array's own memory: the writer would read what
    the next step, to which the state is donated, writes there.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(jnp.copy, tree)


def with_layout(config: Config, stacked: bool) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, scan_layers=stacked))


def convert_layers(tree: Any, like: Any, params_structure: Any, stack: bool) -> Any:
    """Stacks or lists the layers wherever `tree` holds a tree shaped as the parameters.

    Args:
      tree: parameters, or a state with parameters and moments.
      like: abstract arrays in the wanted layout, for their shardings.
      params_structure: tree structure of the parameters in the present layout.
      stack: whether to stack or to list.
    """

    def is_params(node: Any) -> bool:
        return jax.tree.structure(node) == params_structure

    change = stack_layers if stack else unstack_layers

    def convert(tree: Any) -> Any:
        return jax.tree.map(
            lambda node: change(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return jax.jit(convert, out_shardings=shardings)(tree)
