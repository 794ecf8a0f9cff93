"""Converts between stacked layers (one array for all) and listed layers, on restoring."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.config import Config
from glm_jax.models.trees import stack_layers, unstack_layers


def own_copy(tree: Any) -> Any:
    """On CPU a copy of the arrays of `tree`, elsewhere `tree` itself.

    On CPU the "transfer" of an array to the host shares the array's memory. The state is donated to
    the next step, so the writer would read what that step writes.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(jnp.copy, tree)


def with_layout(config: Config, stacked: bool) -> Config:
    """The config with `model.scan_layers` set to `stacked`."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, scan_layers=stacked))


def convert_layers(tree: Any, like: Any, params_structure: Any, stack: bool) -> Any:
    """Stacks or lists the layers in every subtree that has the structure of the parameters.

    Args:
      tree: parameters, or a state with parameters and moments.
      like: abstract arrays in the wanted layout, for their shardings.
      params_structure: tree structure of the parameters in the present layout.
      stack: True: stack the layers; False: list them.
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
