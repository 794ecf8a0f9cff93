"""Converts between stacked layers (one array for all) and listed layers, on restoring."""

import dataclasses
from typing import TypedDict, TypeVar

import jax
import jax.numpy as jnp

from glm_jax.config import Config
from glm_jax.models.trees import stack_layers, unstack_layers

Tree = TypeVar("Tree")


class About(TypedDict, total=False):
    """What a step says of itself in `_CHECKPOINT_METADATA`.

    Attributes:
      config: of the run, as `to_dict` gives it.
      stacked: whether its layers are one array for all.
      manifest: whether it was saved with a manifest; missing in those of older versions.
      data: fingerprints of the data, by source; missing likewise.
    """

    config: dict[str, dict[str, object]]
    stacked: bool
    manifest: bool
    data: dict[str, str]


def own_copy(tree: Tree) -> Tree:
    """On CPU a copy of the arrays of `tree`, elsewhere `tree` itself.

    On CPU the "transfer" of an array to the host shares the array's memory. The state is donated to
    the next step, so the writer would read what that step writes.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(jnp.copy, tree)


def with_layout(config: Config, stacked: bool) -> Config:
    """The config with `compute.scan_layers` set to `stacked`."""
    compute = dataclasses.replace(config.compute, scan_layers=stacked)
    return dataclasses.replace(config, compute=compute)


def convert_layers(
    tree: Tree, like: Tree, params_structure: jax.tree_util.PyTreeDef, stack: bool
) -> Tree:
    """Stacks or lists the layers in every subtree that has the structure of the parameters.

    Args:
      tree: parameters, or a state with parameters and moments.
      like: abstract arrays in the wanted layout, for their shardings.
      params_structure: tree structure of the parameters in the present layout.
      stack: True: stack the layers; False: list them.
    """

    def is_params(node: object) -> bool:
        return jax.tree.structure(node) == params_structure

    change = stack_layers if stack else unstack_layers

    def convert(tree: Tree) -> Tree:
        return jax.tree.map(
            lambda node: change(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return jax.jit(convert, out_shardings=shardings)(tree)
