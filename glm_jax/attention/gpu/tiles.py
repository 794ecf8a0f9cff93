"""What the attention kernels for GPUs share: the static sizes of a call, loops and masks.

Arrays are [B, T, N, H]. In the forward kernel a program has one block of queries of one head, and
the whole row of keys and values of that head, of which it loads one block after the other:

    array               block of a program          loads in the loop
    q, out [B,T,N,H]    [bq, H]
    k, v   [B,S,K,H]    [S, H], head n // (N / K)   [bk, H]
    bounds [B,T]        [bq]
    lse    [B,N,T]      [bq]
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from glm_jax.attention.intervals import HIDDEN

C = TypeVar("C")


@runtime_checkable
class Row(Protocol):
    """A row of `block_ranges`: an array or, in a kernel, a reference to one."""

    def __getitem__(self, index: int, /) -> jax.Array: ...


# The hardware has exp2; this factor is part of the multiplication that is there anyway.
LOG2E = 1.4426950408889634


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The block sizes of a kernel and how Triton runs it.

    Attributes:
      block_q, block_k: slots per block of queries and of keys, powers of two.
      num_warps: warps of 32 threads per program.
      num_stages: stages of the software pipeline of loads.
    """

    block_q: int
    block_k: int
    num_warps: int
    num_stages: int

    def compiler_params(self) -> plt.CompilerParams:
        """The parameters for Triton."""
        return plt.CompilerParams(num_warps=self.num_warps, num_stages=self.num_stages)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static in a call.

    Attributes:
      forward, query_gradient, key_gradient: tilings of the three kernels.
      interpret: run anywhere, slowly, for tests.
    """

    forward: Tiling
    query_gradient: Tiling
    key_gradient: Tiling
    interpret: bool


def matmul(a: jax.Array, b: jax.Array, axis_b: int) -> jax.Array:
    """Product over the last axis of a and one of b, summed in float32."""
    dimensions = (((1,), (axis_b,)), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def hide(
    s: jax.Array, start: jax.Array, end: jax.Array, first_key: int | jax.Array, key_axis: int
) -> jax.Array:
    """Scores with HIDDEN for the keys outside [start, end), [bq] each.

    key_axis 1: s is [bq, bk]; 0: it is transposed, [bk, bq].
    """
    key = first_key + lax.broadcasted_iota(jnp.int32, s.shape, key_axis)
    start, end = (jnp.expand_dims(x, key_axis) for x in (start, end))
    return jnp.where((start <= key) & (key < end), s, HIDDEN)


def loop(ranges: Row, step: Callable[[jax.Array, C, bool], C], carry: C) -> C:
    """Calls carry = step(block, carry, masked) for the blocks of a row of `block_ranges`."""
    bounds = [ranges[i] for i in range(4)]
    for low, high, masked in zip(bounds, bounds[1:], (True, False, True), strict=False):
        carry = lax.fori_loop(low, high, lambda i, c, masked=masked: step(i, c, masked), carry)
    return carry


def block_of(size: int, index: jax.Array) -> slice | pl.Slice:
    """The slice of a block's slots."""
    return pl.ds(index * size, size)
