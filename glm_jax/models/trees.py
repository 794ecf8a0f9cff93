"""Parameters as a plain nested dict: its paths, its two layouts of layers, and parts of it.

    params["embedding"]["table"]                       [V, D]
    params["layers"]["3"]["mlp"]["up"]["kernel"]       [D, F]       listed layers
    params["layers"]["mlp"]["up"]["kernel"]            [L, D, F]    stacked layers

A dict is what jit, grad, optax and orbax take without knowing flax.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from glm_jax.errors import UserError, did_you_mean
from glm_jax.models.weights import is_master
from glm_jax.sharding.rules import path_name, without_layer

Params = dict[str, Any]


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
    stacked = params["layers"]
    num_layers = jax.tree.leaves(stacked)[0].shape[0]
    layers = {str(i): jax.tree.map(lambda leaf: leaf[i], stacked) for i in range(num_layers)}  # noqa: B023
    return {**params, "layers": layers}


def split_params(params: Params, chosen: str | None) -> tuple[Params, Params]:
    """Splits parameters in two: those whose names a regular expression matches, and the others.

        "embedding/.*"   {"embedding": {"table": E}}, {"layers": {..}, "norm": {..}}

    Args:
      params: stacked or listed; leaves of any kind.
      chosen: regular expression that must match whole names. Names are without the number of a
        listed layer, so that it chooses the same parameters in both layouts. None: all are chosen.

    Raises:
      UserError: `chosen` matches no parameter; the message lists the names.
    """
    if chosen is None:
        return params, {}
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    names = set()
    for path, leaf in to_paths(params).items():
        name = without_layer(path)
        names.add(name)
        (first if re.fullmatch(chosen, name) else second)[path] = leaf
    if not first:
        raise UserError(
            f"train.trainable={chosen!r} matches no parameter{did_you_mean(chosen, names)}; there "
            f"are {', '.join(sorted(names))}"
        )
    return from_paths(first), from_paths(second)


def join_params(first: Params, second: Params) -> Params:
    """The inverse of `split_params`."""
    return from_paths({**to_paths(first), **to_paths(second)}) if second else first


def to_paths(params: Params) -> dict[str, Any]:
    """Nested dict -> `{"layers/3/mlp/up/kernel": array}`."""
    return {
        path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params, is_leaf=is_master)
    }


def from_paths(leaves: Mapping[str, Any]) -> Params:
    """The inverse of `to_paths`."""
    params: Params = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return params
