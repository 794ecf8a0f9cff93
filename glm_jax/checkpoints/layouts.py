"""What a checkpoint says of itself, and layers that older versions saved one by one."""

from typing import TypedDict, TypeVar

import jax
import jax.numpy as jnp

from glm_jax.models.trees import stack_layers

Tree = TypeVar("Tree")


class About(TypedDict, total=False):
    """What a step says of itself in `_CHECKPOINT_METADATA`.

    Attributes:
      config: of the run, as `to_dict` gives it.
      stacked: whether its layers are one array for all. Those of a run are, but for runs of older
        versions on CPU; those of a model that was saved alone lie as they were.
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


def with_stacked_layers(tree: Tree, like: Tree, params_structure: jax.tree_util.PyTreeDef) -> Tree:
    """Stacks the layers in every subtree that has the structure of the parameters.

    Args:
      tree: parameters, or a state with parameters and moments, layers listed.
      like: abstract arrays with layers stacked, for their shardings.
      params_structure: tree structure of the parameters with listed layers.
    """

    def is_params(node: object) -> bool:
        return jax.tree.structure(node) == params_structure

    def stack(tree: Tree) -> Tree:
        return jax.tree.map(
            lambda node: stack_layers(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    return jax.jit(stack, out_shardings=shardings)(tree)
