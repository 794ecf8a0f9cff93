"""Matrices laid out in tiles, for steps of few rows on CPU.

With few rows, a step is bound by reading its matrices from memory. XLA's CPU kernels take some
columns of a matrix [D, F] at a time. In memory these are short runs of numbers far apart, which are
read at a third of the bandwidth. In tiles, the columns that a kernel takes are contiguous. Groups
of tiles are separate products, which XLA runs on all cores at once:

    matrix [D, F]    a a b b c c d d       groups of tiles [n, D, 2]    a a   b b      c c   d d
                     a a b b c c d d       (2 columns instead of 16)    a a   b b      c c   d d

A tiled matrix is a kind of weight (`glm_jax.models.weights`). Quantised ones have tiles of another
kind (`glm_jax.generation.integer_tiles`), and an adapter stays beside the tiles of its matrix.
Measured with 8 layers of width 512: docs/decisions/010-decoding-on-cpu.md.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import (
    Quantised,
    QuantisedTable,
    is_quantised,
    num_bytes,
    num_inputs,
)
from glm_jax.config.model import ResolvedModel
from glm_jax.generation.integer_tiles import MOST_GROUPS, TiledIntegers, tile_integers
from glm_jax.generation.memory_left import available_bytes
from glm_jax.models.trees import Params
from glm_jax.models.weights import Matrix, Weight, is_matrix, is_weight
from glm_jax.sharding.rules import path_name

WIDTH = 16
# With more rows a step is bound by arithmetic, and the plain matrices are as fast.
MOST_ROWS = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiled(Weight):
    """A matrix in at most MOST_GROUPS groups of tiles.

    Attributes:
      groups: [n, D, WIDTH] each, D the product of the input axes.
      num_inputs: axes of the matrix that are contracted.
      whole: shape of the plain matrix.
    """

    groups: tuple[jax.Array, ...]
    num_inputs: int = dataclasses.field(metadata={"static": True})
    whole: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole

    def used(self, dtype: DTypeLike) -> jax.Array:
        matrix = jnp.moveaxis(jnp.concatenate(self.groups), 0, 1)
        outputs = math.prod(self.whole[self.num_inputs :])
        return matrix.reshape(len(matrix), -1)[:, :outputs].reshape(self.whole).astype(dtype)

    def multiply(self, x: jax.Array, num_inputs: int) -> jax.Array:
        lead = x.shape[: x.ndim - num_inputs]
        y = self.product(x.reshape(math.prod(lead), -1)).astype(x.dtype)
        return y.reshape(*lead, *self.whole[num_inputs:])

    def product(self, x: jax.Array) -> jax.Array:
        """[M, D] -> float32 [M, the product of the output axes]."""
        products = [
            jax.lax.dot_general(
                jnp.broadcast_to(x, (len(tiles), *x.shape)),
                tiles,
                (((2,), (1,)), ((0,), (0,))),
                preferred_element_type=jnp.float32,
            )
            for tiles in self.groups
        ]
        y = jnp.moveaxis(jnp.concatenate(products), 0, 1).reshape(len(x), -1)
        return y[:, : math.prod(self.whole[self.num_inputs :])]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TiledHead(Weight):
    """A table [V, D] as the LM head, its transpose in tiles."""

    transpose: Tiled | TiledIntegers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.transpose.shape[::-1]

    def used(self, dtype: DTypeLike) -> jax.Array:
        return self.transpose.used(dtype).T

    def score(self, hidden: jax.Array) -> jax.Array:
        y = self.transpose.product(hidden.reshape(-1, hidden.shape[-1]))
        return y.reshape(*hidden.shape[:-1], self.shape[0])

    def gathered(self, dtype: DTypeLike, spec: PartitionSpec) -> "TiledHead":
        """Itself: tiles are for one device."""
        return self


def tiled(config: ResolvedModel, params: Params) -> tuple[ResolvedModel, Params] | None:
    """The same model with a copy of every matrix in tiles, to decode few rows.

    Plain matrices are in compute.dtype, quantised ones as many bits as they have. A tied LM head
    gets its own matrix, since looking up token embeddings needs whole rows.

    Args:
      config, params: the model, its layers listed.

    Returns:
      None if tiles would not help or the copy does not fit: the model is not on one CPU device, has
      weights of another kind, or less memory is free than twice the size of the copy.
    """
    leaves = jax.tree.leaves(params, is_leaf=is_weight)
    devices = {device for leaf in jax.tree.leaves(params) for device in leaf.devices()}
    device = devices.pop()
    if devices or device.platform != "cpu":
        return None
    if not all(map(_can_be_tiled, leaves)):
        return None
    itemsize = jnp.dtype(config.compute.dtype).itemsize
    size = sum(num_bytes(leaf) if is_weight(leaf) else leaf.size * itemsize for leaf in leaves)
    left = available_bytes(device)
    return None if left is None or 2 * size > left else lay_out(config, params)


def _can_be_tiled(leaf: Matrix) -> bool:
    if isinstance(leaf, LowRank):
        return _can_be_tiled(leaf.base)
    return is_quantised(leaf) or not is_weight(leaf)


def lay_out(config: ResolvedModel, params: Params) -> tuple[ResolvedModel, Params]:
    """What `tiled` returns, whatever memory is free; for use with shapes too."""

    def of(path: tuple, leaf: Matrix) -> Matrix:
        name = path_name(path)
        if isinstance(leaf, LowRank):
            return dataclasses.replace(leaf, base=of(path, leaf.base))
        if isinstance(leaf, Quantised):
            return tile_integers(leaf.values, leaf.scale, leaf.num_outputs)
        if isinstance(leaf, Weight) or not is_matrix(name):
            return leaf
        return tile(leaf, num_inputs(name), config.compute.dtype)

    table = (params["embedding"] if config.tied_embeddings else params["output"])["table"]
    layers = jax.tree.map_with_path(of, params["layers"], is_leaf=is_weight)
    untied = dataclasses.replace(config, tied_embeddings=False)
    head = TiledHead(_transposed(table, config.compute.dtype))
    return untied, {**params, "layers": layers, "output": {"table": head}}


def _transposed(table: Matrix, dtype: str) -> Tiled | TiledIntegers:
    """A table [V, D] as a tiled matrix [D, V]."""
    if isinstance(table, QuantisedTable):
        return tile_integers(table.values.T, table.scale.T, 1)
    assert isinstance(table, jax.Array)
    return tile(table.T, 1, dtype)


@functools.partial(jax.jit, static_argnames=("num_inputs", "dtype"))
def tile(matrix: jax.Array, num_inputs: int, dtype: str) -> Tiled:
    """Lays a matrix [*inputs, *outputs] out in tiles; the last tile is padded with 0."""
    flat = matrix.reshape(math.prod(matrix.shape[:num_inputs]), -1).astype(dtype)
    flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % WIDTH)))
    tiles = jnp.moveaxis(flat.reshape(len(flat), -1, WIDTH), 1, 0)
    groups = jnp.array_split(tiles, min(MOST_GROUPS, len(tiles)))
    return Tiled(tuple(groups), num_inputs, matrix.shape)
