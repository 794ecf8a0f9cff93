"""What a checkpoint says of itself, and layers that older versions saved one by one."""

from typing import TypedDict, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from glm_jax.adapters.quantised import arrays_by_name
from glm_jax.models.trees import Params, from_paths, stack_layers, to_paths
from glm_jax.sharding.rules import path_name

Tree = TypeVar("Tree")


class About(TypedDict, total=False):
    """What a step says of itself in `_CHECKPOINT_METADATA`.

    Attributes:
      config: of the run, as `to_dict` gives it.
      stacked: whether its layers are one array for all. Those of a run are, but for runs of older
        versions on CPU; those of a model that was saved alone lie as they were.
      manifest: whether it was saved with a manifest; missing in those of older versions.
      data: fingerprints of the data, by source; missing likewise.
      base: of a run that does not train all parameters of the model that it began with: that model
        (`glm_jax.checkpoints.base`). The step then holds what is trained alone.
    """

    config: dict[str, dict[str, object]]
    stacked: bool
    manifest: bool
    data: dict[str, str]
    base: dict[str, object]


def own_copy(tree: Tree) -> Tree:
    """On CPU a copy of the arrays of `tree`, elsewhere `tree` itself.

    On CPU the "transfer" of an array to the host shares the array's memory. The state is donated to
    the next step, so the writer would read what that step writes.
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.tree.map(jnp.copy, tree)


def by_arrays(tree: PyTree) -> Params:
    """A part of the parameters as nested dicts of arrays, those of a weight by their names.

    `{"query": {"kernel": LowRank(None, a, b)}}` -> `{"query": {"kernel": {"a": a, "b": b}}}`
    """
    return from_paths(arrays_by_name(tree))


def from_arrays_like(like: Tree, arrays: Params) -> Tree:
    """The inverse of `by_arrays`, for a tree of the structure of `like`."""
    found = to_paths(arrays)
    return jax.tree.map_with_path(lambda path, _: found[path_name(path)], like)


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
