"""Matrices laid out for steps of few rows on CPU.

With few rows, a step takes as long as its matrices take to come from memory. XLA's CPU kernels take
some columns at a time; of a matrix [D, F] that is some numbers, a jump, some numbers, ..., which
memory serves at a third of its speed. In tiles, what a kernel takes lies in one piece; and tiles in
groups are products of their own, which XLA runs on all cores at once:

    matrix [D, F]    a a b b c c d d       groups of tiles [n, D, 2]    a a   b b      c c   d d
                     a a b b c c d d       (2 columns instead of 16)    a a   b b      c c   d d

Measured with 8 layers of width 512: docs/decisions/010-decoding-on-cpu.md.
"""

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from glm_jax.config.model import ModelConfig
from glm_jax.models.layers import Linear
from glm_jax.models.params import bind
from glm_jax.models.transformer import Transformer
from glm_jax.models.trees import Params

WIDTH = 16
# XLA's executor keeps up to 8 operations that are ready on one thread and shares out what is more.
MOST_GROUPS = 16
# With more rows a step is bound by arithmetic, and the plain matrices are as fast.
MOST_ROWS = 32

# A matrix in at most MOST_GROUPS groups of tiles, [n, D, WIDTH] each.
Groups = tuple[jax.Array, ...]
# Path of the module ("layers/0/mlp/up", "output") -> its matrix.
Tiles = dict[str, Groups]


def no_tiles() -> Tiles | None:
    """For those who take a function that gives tiles, to use the parameters as they are."""
    return None


def make_tiles(config: ModelConfig, params: Params) -> Tiles | None:
    """Copies every matrix into tiles of compute_dtype.

    Args:
      config, params: the model, its layers listed.

    Returns:
      None where tiles do not pay or the copy has no room: not on one CPU device, or with less than
      twice its size of memory free.
    """
    leaves = jax.tree.leaves(params)
    devices = {device for leaf in leaves for device in leaf.devices()}
    size = sum(leaf.size for leaf in leaves) * jnp.dtype(config.compute_dtype).itemsize
    if len(devices) > 1 or devices.pop().platform != "cpu" or 2 * size > _free_memory():
        return None
    model = bind(config, params)
    tiles = {
        _name(path): _tile(module.kernel[...], module.num_inputs, config.compute_dtype)
        for path, module in _linears(model)
    }
    table = (model.embedding if model.output is None else model.output).table[...]
    tiles["output"] = _tile(table.T, 1, config.compute_dtype)
    return tiles


def bind_tiles(
    config: ModelConfig, params: Params, tiles: Tiles | None, batch_size: int
) -> Transformer:
    """`bind` for steps of `batch_size` rows, with tiles instead of the matrices where they pay."""
    model: Any = bind(config, params)
    if tiles is None or batch_size > MOST_ROWS:
        return model
    for path, module in _linears(model):
        *parents, name = path
        parent = model
        for step in parents:
            parent = parent[step] if isinstance(step, int) else getattr(parent, step)
        setattr(parent, name, _TiledLinear(module, tiles[_name(path)]))
    model.output = nnx.data(_TiledOutput(tiles["output"], config.vocab_size))
    return model


def multiply(x: jax.Array, groups: Groups, size: int) -> jax.Array:
    """[M, D] times a matrix [D, size] in tiles: float32 [M, size]."""
    products = [
        jax.lax.dot_general(
            jnp.broadcast_to(x, (len(tiles), *x.shape)),
            tiles,
            (((2,), (1,)), ((0,), (0,))),
            preferred_element_type=jnp.float32,
        )
        for tiles in groups
    ]
    y = jnp.concatenate(products)
    return jnp.moveaxis(y, 0, 1).reshape(len(x), -1)[:, :size]


class _TiledLinear(nnx.Module):
    """`Linear` with its kernel in tiles."""

    def __init__(self, linear: Linear, tiles: Groups):
        self.tiles = nnx.List([nnx.Param(group) for group in tiles])
        self.bias = linear.bias
        self.num_inputs = linear.num_inputs
        self.outputs = linear.kernel[...].shape[linear.num_inputs :]

    def __call__(self, x: jax.Array) -> jax.Array:
        lead = x.shape[: x.ndim - self.num_inputs]
        rows = x.reshape(math.prod(lead), -1)
        y = multiply(rows, _groups(self.tiles), math.prod(self.outputs)).astype(x.dtype)
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype).reshape(-1)
        return y.reshape(*lead, *self.outputs)


class _TiledOutput(nnx.Module):
    """The `scorer` of `Embedding` with its table in tiles."""

    def __init__(self, tiles: Groups, vocab_size: int):
        self.tiles = nnx.List([nnx.Param(group) for group in tiles])
        self.vocab_size = vocab_size

    def scorer(self) -> Callable[[jax.Array], jax.Array]:
        return self._score

    def _score(self, hidden: jax.Array) -> jax.Array:
        rows = hidden.reshape(-1, hidden.shape[-1])
        y = multiply(rows, _groups(self.tiles), self.vocab_size)
        return y.reshape(*hidden.shape[:-1], self.vocab_size)


def _linears(model: Transformer) -> list[tuple[tuple, Linear]]:
    return [(path, part) for path, part in nnx.iter_modules(model) if isinstance(part, Linear)]


def _name(path: tuple) -> str:
    return "/".join(map(str, path))


def _groups(tiles: nnx.List) -> Groups:
    return tuple(group[...] for group in tiles)


@functools.partial(jax.jit, static_argnames=("num_inputs", "dtype"))
def _tile(kernel: jax.Array, num_inputs: int, dtype: str) -> Groups:
    matrix = kernel.reshape(math.prod(kernel.shape[:num_inputs]), -1).astype(dtype)
    matrix = jnp.pad(matrix, ((0, 0), (0, -matrix.shape[1] % WIDTH)))
    tiles = jnp.moveaxis(matrix.reshape(len(matrix), -1, WIDTH), 1, 0)
    return tuple(jnp.array_split(tiles, min(MOST_GROUPS, len(tiles))))


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
