"""Parameters as a plain nested dict: created on a mesh, bound to a `Transformer`, converted.

    params["embedding"]["table"]                       [V, D]
    params["layers"]["3"]["mlp"]["up"]["kernel"]       [D, F]       listed layers
    params["layers"]["mlp"]["up"]["kernel"]            [L, D, F]    stacked layers

jit, grad, optax and orbax take a dict without knowing flax; `bind` turns it into the module that
computes.
"""

import functools
import math
from typing import TYPE_CHECKING

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from glm_jax.config.model import ModelConfig, ResolvedModel
from glm_jax.models.choices import uses_scan
from glm_jax.models.seeds import key_of
from glm_jax.models.transformer import Transformer
from glm_jax.models.trees import Params, from_paths, is_stacked, to_paths, unstack_layers
from glm_jax.models.weights import settle, with_kind
from glm_jax.sharding.rules import param_shardings

# A plain `ModelConfig` is accepted, and runs by the defaults of `ComputeConfig`. Type checkers ask
# for a `ResolvedModel`, so that within the package what `compute` says is never lost.
if TYPE_CHECKING:
    Model = ResolvedModel
else:
    Model = ModelConfig


def create_params(config: Model, mesh: Mesh, seed: int) -> Params:
    """Draws the initial parameters; each device draws only its shards.

    The values depend on `seed` and on each parameter's path, not on the mesh. Layers are stacked.

    Raises:
      UserError: the mesh cannot split a parameter; see `glm_jax.sharding.rules.param_shardings`.
    """
    config = config.resolved()
    shardings = param_shardings(_abstract(config), mesh)
    return jax.jit(functools.partial(_draw, config), out_shardings=shardings)(key_of(seed))


def create_prefix(config: Model, mesh: Mesh, seed: int) -> Params:
    """The prefix alone of what `create_params` draws."""
    return create_part(config, mesh, seed, "prefix")


def create_part(config: Model, mesh: Mesh, seed: int, name: str) -> Params:
    """One part alone, "prefix" or "value_head", of what `create_params` draws."""
    config = config.resolved()
    shardings = param_shardings(_abstract(config), mesh)[name]
    return jax.jit(lambda key: _draw(config, key)[name], out_shardings=shardings)(key_of(seed))


def abstract_params(
    config: Model, mesh: Mesh | AbstractMesh, weights: str = "plain", *, listed: bool = False
) -> Params:
    """Like `create_params`, with a `jax.ShapeDtypeStruct` that has a sharding for each array.

    Args:
      config, mesh: as of `create_params`.
      weights: kind of the matrices (`glm_jax.models.weights.KINDS`).
      listed: layers one by one instead of stacked.
    """
    shapes = jax.eval_shape(
        functools.partial(with_kind, kind=weights), _abstract(config.resolved())
    )
    if listed:
        shapes = jax.eval_shape(unstack_layers, shapes)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, mesh),
    )


def bind(config: Model, params: Params) -> Transformer:
    """The module that computes with `params`; cheap, and usable inside jit and grad.

    Stacked layers are split here where they do not run as one scan (`compute.scan_layers`).

    Args:
      config: of the model.
      params: nested dict of arrays, or of tracers; layers stacked or listed.

    Raises:
      ValueError: the paths in `params` are not those of the model.
    """
    config = config.resolved()
    stacked = is_stacked(params) and uses_scan(config.compute)
    if not stacked:
        params = unstack_layers(params)
    graph, treedef, paths = _skeleton(config.with_compute(scan_layers=stacked))
    # Stacked masters are settled layer by layer, inside the scan.
    layers = params["layers"] if stacked else settle(params["layers"])
    leaves = to_paths({**settle({**params, "layers": {}}), "layers": layers})
    if leaves.keys() != set(paths):
        odd = sorted(leaves.keys() ^ set(paths))
        raise ValueError(f"params do not fit the model; on one side only: {', '.join(odd)}")
    return nnx.merge(graph, jax.tree.unflatten(treedef, [leaves[path] for path in paths]))


def count_params(config: Model) -> int:
    """Number of parameters of the model; allocates nothing."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_abstract(config.resolved())))


@functools.lru_cache(maxsize=32)
def param_names(config: Model) -> tuple[str, ...]:
    """The paths of a model's parameters, layers stacked; allocates nothing."""
    return tuple(to_paths(_abstract(config.resolved())))


def _draw(config: ResolvedModel, key: jax.Array) -> Params:
    stacked = config.with_compute(scan_layers=True)
    state = nnx.state(Transformer(stacked, rngs=nnx.Rngs(params=key)))
    return from_paths({_join(path): leaf[...] for path, leaf in nnx.to_flat_state(state)})


def _abstract(config: ResolvedModel) -> Params:
    return jax.eval_shape(functools.partial(_draw, config), jax.random.key(0))


@functools.cache
def _skeleton(config: ResolvedModel) -> tuple[nnx.GraphDef, jax.tree_util.PyTreeDef, list[str]]:
    """The module's structure, and the paths of its parameters in the order of its leaves."""
    module = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(module)
    paths = [_join(path) for path, _ in nnx.to_flat_state(state)]
    return graph, jax.tree.structure(state), paths


def _join(path: tuple) -> str:
    return "/".join(map(str, path))
