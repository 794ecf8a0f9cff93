"""Parameters as a plain nested dict: its paths, its two layouts of layers, and parts of it.

    params["embedding"]["table"]                       [V, D]
    params["layers"]["mlp"]["up"]["kernel"]            [L, D, F]    stacked layers
    params["layers"]["3"]["mlp"]["up"]["kernel"]       [D, F]       listed layers

Stacked is how parameters are drawn, trained and saved; listed is how files of others hold them and
how they are decoded with. A dict is what jit, grad, optax and orbax take without knowing flax.
"""

import functools
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from glm_jax.errors import UserError, did_you_mean
from glm_jax.models.weights import cast_floats, is_weight
from glm_jax.sharding.rules import path_name, without_layer

# Nested dicts; a leaf is an array, a `Master`, a shape or a sharding.
Params = dict[str, PyTree]
Leaves = dict[str, PyTree]


def is_stacked(params: Params) -> bool:
    """Whether the layers' parameters have a leading axis L."""
    return "0" not in params.get("layers", {})


def stack_layers(params: Params) -> Params:
    """Listed layers -> stacked layers, with equal values; stacked ones are returned unchanged."""
    if is_stacked(params):
        return params
    layers = params["layers"]
    listed = [layers[str(index)] for index in range(len(layers))]
    return {**params, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *listed)}


def unstack_layers(params: Params) -> Params:
    """Stacked layers -> listed layers, with equal values; listed ones are returned unchanged."""
    if not is_stacked(params) or "layers" not in params:
        return params
    return {**params, "layers": _split(params["layers"])}


# Inlined in other programs; by itself one program and not two for every shape.
@functools.partial(jax.jit, inline=True)
def _split(stacked: Params) -> Params:
    leaves, structure = jax.tree.flatten(stacked)
    # The gradient of one split is one concatenation; that of L slices would be a sum of L arrays
    # of the whole shape.
    parts = [jax.lax.split(leaf, [1] * leaf.shape[0]) for leaf in leaves]
    return {
        str(index): jax.tree.unflatten(
            structure, [part.reshape(part.shape[1:]) for part in of_layer]
        )
        for index, of_layer in enumerate(zip(*parts, strict=True))
    }


def cast(params: Params, dtype: str) -> Params:
    """Casts all floating-point arrays but those of a prefix and a value head, which are float32.

    A `Weight` decides for itself: quantised ones stay as they are.
    """

    def of(path: tuple, leaf: PyTree) -> PyTree:
        if path_name(path).startswith(("prefix/", "value_head/")):
            return leaf
        return leaf.cast(dtype) if is_weight(leaf) else cast_floats(leaf, dtype)

    return jax.tree.map_with_path(of, params, is_leaf=is_weight)


def split_params(params: Params, chosen: str | None) -> tuple[Params, Params]:
    """Splits parameters in two: those whose names a regular expression matches, and the others.

        "embedding/.*"   {"embedding": {"table": E}}, {"layers": {..}, "norm": {..}}

    The arrays of a `Weight` have names of their own, "../kernel/values". One that is split stands
    on both sides, with None for the arrays of the other.

    Args:
      params: stacked or listed; leaves of any kind.
      chosen: regular expression that must match whole names. Names are without the number of a
        listed layer, so that it chooses the same parameters in both layouts. None: all are chosen.

    Raises:
      UserError: `chosen` matches no parameter; the message lists the names.
    """
    if chosen is None:
        return params, {}
    names: set[str] = set()
    sides: tuple[Leaves, Leaves] = ({}, {})
    for path, leaf in to_paths(params).items():

        def is_chosen(inner: tuple, _: object, name: str = without_layer(path)) -> bool:
            name = "/".join([name, *([path_name(inner)] if inner else [])])
            names.add(name)
            return re.fullmatch(chosen, name) is not None

        mask = jax.tree.map_with_path(is_chosen, leaf)
        for side, wanted in zip(sides, (True, False), strict=True):
            if wanted in jax.tree.leaves(mask):
                side[path] = jax.tree.map(
                    lambda part, is_first, wanted=wanted: part if is_first == wanted else None,
                    leaf,
                    mask,
                )
    if not sides[0]:
        raise UserError(
            f"train.trainable={chosen!r} matches no parameter{did_you_mean(chosen, names)}; there "
            f"are {', '.join(sorted(names))}"
        )
    return from_paths(sides[0]), from_paths(sides[1])


def join_params(first: Params, second: Params) -> Params:
    """The inverse of `split_params`."""
    if not second:
        return first
    joined = to_paths(first)
    for path, leaf in to_paths(second).items():
        if path in joined:
            leaf = jax.tree.map(
                lambda one, other: other if one is None else one,
                joined[path],
                leaf,
                is_leaf=lambda node: node is None,
            )
        joined[path] = leaf
    return from_paths(joined)


def to_paths(params: Params) -> Leaves:
    """Nested dict -> `{"layers/3/mlp/up/kernel": array}`; a `Weight` is one leaf."""
    return {
        path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params, is_leaf=is_weight)
    }


def from_paths(leaves: Mapping[str, PyTree]) -> Params:
    """The inverse of `to_paths`."""
    params: Params = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return params
