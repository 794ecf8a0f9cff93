"""The L layers of a model: stacked and scanned, or listed and run one after another.

stacked    one layer whose parameters have a leading axis L; a scan compiles it once
listed     L layers, each with its own parameters, which `glm_jax.models.params` converts
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from glm_jax.config.compute import ComputeConfig
from glm_jax.models.choices import uses_scan
from glm_jax.models.remat import rematerialised
from glm_jax.models.weights import as_used

One = TypeVar("One", bound=nnx.Module)
# (layer, x, its dropout key, what it has of its own) -> (x, anything)
Call = Callable[[One, jax.Array, jax.Array | None, PyTree], tuple[jax.Array, object]]


def make_layers(
    make: Callable[[jax.Array], One], count: int, compute: ComputeConfig, *, key: jax.Array
) -> One | nnx.List[One]:
    """L layers, stacked or listed; either way layer i draws from the key folded with i.

    Args:
      make: a layer from its key.
      count: L.
      compute: `scan_layers` says in which form.
      key: of all layers.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
    if uses_scan(compute):
        # In a loop random draws take half as long to compile as under vmap.
        states = jax.lax.map(lambda key: nnx.state(make(key)), keys)
        return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: make(key))), states)
    return nnx.List([make(keys[index]) for index in range(count)])


def layer_keys(key: jax.Array | None, num_layers: int) -> jax.Array | None:
    """One dropout key per layer, [L], folded from the layer's index; None without a key."""
    if key is None:
        return None
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_layers))


def of_layer(each: PyTree, index: int) -> PyTree:
    """What layer `index` has of arrays with a leading axis L."""
    return jax.tree.map(lambda array: array[index], each)


def run_layers(
    layers: One | nnx.List[One],
    call: Call[One],
    x: jax.Array,
    each: tuple[jax.Array | None, PyTree],
    compute: ComputeConfig,
    first: int | None = None,
) -> jax.Array:
    """Runs x through all layers, under the policy `compute.remat`.

    Args:
      layers: as of `make_layers`.
      call: what is done with one layer.
      x: what goes into the first.
      each: keys and other arrays with a leading axis L, or None; a layer's are given to `call`.
      compute: how they run.
      first: only the first so many of listed layers.
    """
    scanned = not isinstance(layers, nnx.List)
    some = list(layers)[:first] if isinstance(layers, nnx.List) else [layers]
    if not some:
        return x
    splits = [nnx.split(layer) for layer in some]
    graph = splits[0][0]

    def run(x, of_one_layer):
        state, key, own = of_one_layer
        return call(nnx.merge(graph, as_used(state, compute.dtype, key)), x, key, own)

    run = rematerialised(run, compute.remat, scanned)
    if scanned:
        return jax.lax.scan(run, x, (splits[0][1], *each))[0]
    for index, (_, state) in enumerate(splits):
        x, _ = run(x, (state, *of_layer(each, index)))
    return x


def last_layer(layers: One | nnx.List[One], compute: ComputeConfig) -> One:
    """The last of listed layers, its weights as they are used.

    Raises:
      ValueError: the layers are stacked.
    """
    if not isinstance(layers, nnx.List):
        raise ValueError("the last layer is not apart; see glm_jax.models.params.unstack_layers")
    graph, state = nnx.split(layers[-1])
    return nnx.merge(graph, as_used(state, compute.dtype))
