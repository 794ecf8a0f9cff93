"""Parameters as a plain nested dict: created on a mesh, bound to a `Transformer`, converted.

    params["embedding"]["table"]                       [V, D]
    params["layers"]["3"]["mlp"]["up"]["kernel"]       [D, F]       listed layers
    params["layers"]["mlp"]["up"]["kernel"]            [L, D, F]    stacked layers

jit, grad, optax and orbax take a dict without knowing flax; `bind` turns it into the module that
computes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from glm_jax.config.model import ModelConfig
from glm_jax.errors import UserError, did_you_mean
from glm_jax.models.seeds import key_of
from glm_jax.models.transformer import Transformer, uses_scan
from glm_jax.models.weights import is_master, is_matrix, settle
from glm_jax.sharding.rules import param_shardings, path_name, without_layer

Params = dict[str, Any]


def create_params(config: ModelConfig, mesh: Mesh, seed: int) -> Params:
    """Draws the initial parameters; each device draws only its shards.

    The values depend on `seed` and on each parameter's path, neither on the mesh nor on whether
    layers are stacked.

    Raises:
      UserError: the mesh cannot split a parameter; see `glm_jax.sharding.rules.param_shardings`.
    """
    shardings = param_shardings(_abstract(config), mesh)
    return jax.jit(functools.partial(_draw, config), out_shardings=shardings)(key_of(seed))


def abstract_params(config: ModelConfig, mesh: Mesh) -> Params:
    """Like `create_params`, with a `jax.ShapeDtypeStruct` that has a sharding for each array."""
    shapes = _abstract(config)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, mesh),
    )


def bind(config: ModelConfig, params: Params) -> Transformer:
    """The module that computes with `params`; cheap, and usable inside jit and grad.

    Args:
      config: of the model; whether layers are stacked is read from `params`.
      params: nested dict of arrays, or of tracers.

    Raises:
      ValueError: the paths in `params` are not those of the model.
    """
    stacked = is_stacked(params)
    graph, treedef, paths = _skeleton(dataclasses.replace(config, scan_layers=stacked))
    # Stacked masters are settled layer by layer, inside the scan.
    layers = params["layers"] if stacked else settle(params["layers"])
    leaves = to_paths({**settle({**params, "layers": {}}), "layers": layers})
    if leaves.keys() != set(paths):
        odd = sorted(leaves.keys() ^ set(paths))
        raise ValueError(f"params do not fit the model; on one side only: {', '.join(odd)}")
    return nnx.merge(graph, jax.tree.unflatten(treedef, [leaves[path] for path in paths]))


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


def decay_mask(params: Params) -> Params:
    """True where weight decay applies: everything but biases and the scales of norms.

    Token and position embeddings do decay, as in the published code.
    """
    return jax.tree.map_with_path(lambda path, _: is_matrix(path_name(path)), params)


def count_params(config: ModelConfig) -> int:
    """Number of parameters of the model; allocates nothing."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_abstract(config)))


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


def _draw(config: ModelConfig, key: jax.Array) -> Params:
    # Stacked layers compile once instead of L times; both layouts have the same values.
    stacked = dataclasses.replace(config, scan_layers=True)
    state = nnx.state(Transformer(stacked, rngs=nnx.Rngs(params=key)))
    params = from_paths({_join(path): leaf[...] for path, leaf in nnx.to_flat_state(state)})
    return params if uses_scan(config) else unstack_layers(params)


def _abstract(config: ModelConfig) -> Params:
    return jax.eval_shape(functools.partial(_draw, config), jax.random.key(0))


@functools.cache
def _skeleton(config: ModelConfig) -> tuple[nnx.GraphDef, Any, list[str]]:
    """The module's structure, and the paths of its parameters in the order of its leaves."""
    module = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(module)
    paths = [_join(path) for path, _ in nnx.to_flat_state(state)]
    return graph, jax.tree.structure(state), paths


def _join(path: tuple) -> str:
    return "/".join(map(str, path))
