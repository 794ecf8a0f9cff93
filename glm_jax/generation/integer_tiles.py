"""Quantised matrices in tiles, multiplied as integers, for steps of few rows on CPU.

XLA's CPU compiler casts a matrix of integers to float32 before it multiplies, and so writes and
reads four times its bytes, of int4 eight times. It multiplies int8 by int8 without a copy. So with
few rows the activations are int8 too, in three digits to the base 254:

    x [M, D]  =  s (d0 + d1 / 254 + d2 / 254^2)       s = max |x| / 127 of each row, |d| <= 127

A product of M rows is one of 3 M rows of digits. What the digits leave out of an activation is at
most 2^-24 of the largest of its row, so the product is as exact as one in float32.

With more rows the tiles are cast, one matrix after the other, which the caches hold.

int4 is held as nibbles, two tiles in one array of bytes, and unpacked group by group. Measured in
docs/decisions/010-decoding-on-cpu.md.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

from glm_jax.models.weights import Weight

# Wider than tiles of floating-point numbers: int8 is a quarter of their bytes.
INTEGER_WIDTH = 64
# XLA's executor runs up to 8 ready operations on one thread, and distributes only those beyond.
MOST_GROUPS = 16
# With more rows, products of digits take longer than casting the tiles.
MOST_ROWS_OF_DIGITS = 4
_DIGITS = 3
_BASE = 254.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TiledIntegers(Weight):
    """A quantised matrix in at most MOST_GROUPS groups of tiles.

    Attributes:
      groups: int8 [n, G, D / G, INTEGER_WIDTH] each, D the product of the input axes, in G groups
        with a scale of their own; of int4, the high nibbles are a tile and the low ones the next.
      scale: float32 [G, F], F the product of the output axes.
      bits: 8 or 4.
      num_inputs: axes of the matrix that are contracted.
      whole: shape of the plain matrix.
    """

    groups: tuple[jax.Array, ...]
    scale: jax.Array
    bits: int = dataclasses.field(metadata={"static": True})
    num_inputs: int = dataclasses.field(metadata={"static": True})
    whole: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole

    def used(self, dtype: DTypeLike) -> jax.Array:
        zero = jnp.int8(0)
        tiles = jnp.concatenate(
            [jnp.stack(self._parts(group, zero), 1).reshape(-1, *group.shape[1:])
             for group in self.groups]
        )  # fmt: skip
        integers = jnp.moveaxis(tiles, 0, 2).reshape(*tiles.shape[1:3], -1)
        integers = integers[..., : self.scale.shape[1]].astype(jnp.float32)
        return (integers * self.scale[:, None]).reshape(self.whole).astype(dtype)

    def multiply(self, x: jax.Array, num_inputs: int) -> jax.Array:
        lead = x.shape[: x.ndim - num_inputs]
        y = self.product(x.reshape(math.prod(lead), -1)).astype(x.dtype)
        return y.reshape(*lead, *self.whole[num_inputs:])

    def product(self, x: Float[Array, "M D"]) -> Float[Array, "M F"]:
        """In float32."""
        (rows, _), (groups, outputs) = x.shape, self.scale.shape
        few = rows <= MOST_ROWS_OF_DIGITS
        factor, unit = to_digits(x) if few else (x.astype(jnp.float32), jnp.ones((rows, 1)))
        # 0 always, and read from x. Else XLA casts or unpacks all matrices of a program before its
        # first product, and the whole model lies in memory unpacked.
        zero = jnp.minimum(jnp.abs(factor[0, 0]), 0).astype(jnp.int8)
        factor = jnp.moveaxis(factor.reshape(len(factor), groups, -1), 1, 0)
        products = [
            jnp.stack([_dot(factor, part) for part in self._parts(tiles, zero)], 1)
            for tiles in self.groups
        ]
        # [n, 1 or 2, G, M or 3 M, WIDTH] each.
        y = jnp.concatenate([part.reshape(-1, *part.shape[2:]) for part in products])
        y = jnp.moveaxis(y, 0, 2).reshape(*factor.shape[:2], -1)[..., :outputs]
        if few:
            y = from_digits(jnp.moveaxis(y.reshape(groups, _DIGITS, rows, outputs), 1, 0))
        return (y * self.scale[:, None]).sum(0) * unit

    def _parts(self, tiles: jax.Array, zero: jax.Array) -> list[jax.Array]:
        """Tiles of int8: themselves, or their high and their low nibbles."""
        if self.bits == 8:
            return [tiles ^ zero]
        return [tiles >> (zero + 4), (tiles << (zero + 4)) >> (zero + 4)]


def _dot(factor: jax.Array, tiles: jax.Array) -> jax.Array:
    """[G, R, D / G] times [n, G, D / G, W] -> [n, G, R, W], int32 or float32."""
    is_digits = factor.dtype == jnp.int8
    return jax.lax.dot_general(
        jnp.broadcast_to(factor, (len(tiles), *factor.shape)),
        tiles.astype(factor.dtype),
        (((3,), (2,)), ((0, 1), (0, 1))),
        preferred_element_type=jnp.int32 if is_digits else jnp.float32,
    )


def to_digits(x: Float[Array, "M D"]) -> tuple[Int8[Array, "R D"], Float[Array, "M 1"]]:
    """The digits of rows, and what a first digit of 1 stands for.

        [[127.0, 0.5]]  ->  first digits [127, 0], second [0, 127], third [0, 0], unit [[1.0]]

    Returns:
      R = 3 M rows: the first digits of all, their second, their third.
    """
    unit = jnp.max(jnp.abs(x), axis=1, keepdims=True).astype(jnp.float32) / 127
    unit = jnp.where(unit == 0, 1.0, unit)
    left, digits = x.astype(jnp.float32) / unit, []
    for _ in range(_DIGITS):
        digit = jnp.round(left)
        digits.append(digit.astype(jnp.int8))
        left = (left - digit) * _BASE
    return jnp.concatenate(digits), unit


def from_digits(y: jax.Array) -> jax.Array:
    """The number of digits [3, ..], in units: float32 [..]."""
    first, second, third = y.astype(jnp.float32)
    return first + (second + third / _BASE) / _BASE


@functools.partial(jax.jit, static_argnames="num_outputs")
def tile_integers(values: jax.Array, scale: jax.Array, num_outputs: int) -> TiledIntegers:
    """Lays a quantised matrix of a listed layer out in tiles; the last is padded with 0.

    Args:
      values, scale, num_outputs: as of `glm_jax.adapters.quantised.Quantised`.
    """
    bits, groups = 4 if values.dtype == jnp.int4 else 8, len(scale)
    values, num_inputs = values.astype(jnp.int8), values.ndim - num_outputs
    inputs = math.prod(values.shape[:num_inputs])
    flat = values.reshape(groups, inputs // groups, -1)
    packed = INTEGER_WIDTH * (8 // bits)
    flat = jnp.pad(flat, ((0, 0), (0, 0), (0, -flat.shape[2] % packed)))
    tiles = jnp.moveaxis(flat.reshape(*flat.shape[:2], -1, INTEGER_WIDTH), 2, 0)
    if bits == 4:
        tiles = (tiles[::2] << 4) | (tiles[1::2] & 15)
    return TiledIntegers(
        tuple(jnp.array_split(tiles, min(MOST_GROUPS, len(tiles)))),
        scale.astype(jnp.float32).reshape(groups, -1),
        bits,
        num_inputs,
        values.shape,
    )
