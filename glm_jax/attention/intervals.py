"""Scores outside an interval, and the blocks of queries and keys that a kernel computes.

Kernels compute scores in blocks, and the intervals tell which blocks are needed. A block is WHOLE
if every query sees every key, so that it needs no mask, EMPTY if no query sees any key, and PARTIAL
otherwise. Eight queries and eight keys in blocks of two; two segments of four slots, the first with
a prefix length of 2, the second causal:

    keys      0 1 2 3 4 5 6 7
    query 0   x x . .                       kinds [4, 4]    W . . .
          1   x x . .                                       W P . .
          2   x x x .                                       . . P .
          3   x x x x                                       . . W P
          4           x . . .
          5           x x . .               steps, one output block after the other:
          6           x x x .                 by query   (0,0) (1,0) (1,1) (2,2) (3,2) (3,3)
          7           x x x x                 by key     (0,0) (1,0) (1,1) (2,2) (3,2) (3,3)

Only these steps are run, six of sixteen here. An output block without needed blocks still has one
step, EMPTY, which writes its zeros. The list is computed in jnp from the bounds. The TPU's kernels
read it from scalar memory, one packed int32 per step; the GPU's take ranges instead
(`glm_jax.attention.gpu.ranges`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

# HIDDEN is the score of a key outside the interval, FLOOR a lower bound of the largest score. Since
# exp(HIDDEN - FLOOR) is 0, a query without keys sums to exactly 0. Its log-sum-exp is HIDDEN.
HIDDEN = -1e30
FLOOR = -1e20

EMPTY, PARTIAL, WHOLE = 0, 1, 2

# A packed step: outer block (13 bits), inner block (14), whether it is the first and whether it is
# the last step of its outer block, kind.
_OUTER, _INNER, _FIRST, _LAST = 18, 4, 3, 2
MAX_BLOCKS = 1 << (31 - _OUTER)

LANES = 128


class Steps(NamedTuple):
    """The steps of a kernel for each row of the batch.

    Attributes:
      packed: [B * size] int32, row after row, in the form that `unpack` reads. The rest of a row is
        EMPTY steps on its last blocks, which load and write nothing.
      longest: int32, the number of steps of the longest row, and of the kernel's grid.
      size: the capacity of a row.
    """

    packed: jax.Array
    longest: jax.Array
    size: int


class Step(NamedTuple):
    """One step: an outer block, that of the output, and an inner one."""

    outer: jax.Array
    inner: jax.Array
    is_first: jax.Array
    is_last: jax.Array
    kind: jax.Array


def block_size(length: int, largest: int) -> int:
    """The multiple of 128, at most `largest`, with the fewest blocks and then the least padding.

    >>> [block_size(n, 512) for n in (1, 128, 512, 520, 1000, 2048)]
    [128, 128, 512, 384, 512, 512]
    """
    count = -(-length // largest)
    return -(-length // (count * LANES)) * LANES


def block_kinds(
    attend_start: Int[jax.Array, "B T"],
    attend_end: Int[jax.Array, "B T"],
    block_q: int,
    block_k: int,
    num_key_blocks: int,
) -> Int[jax.Array, "B query_blocks key_blocks"]:
    """EMPTY, PARTIAL or WHOLE for every pair of blocks.

    A query with the empty interval needs no block of keys, and its blocks are not WHOLE. All blocks
    between the first and the last key that a block of queries sees count as needed.

    Args:
      attend_start, attend_end: [B, T] int32; T is a multiple of block_q.
      block_q, block_k: slots per block.
      num_key_blocks: blocks of keys.

    Returns:
      [B, T / block_q, num_key_blocks] int32.
    """
    start = jnp.reshape(attend_start, (attend_start.shape[0], -1, block_q))
    end = jnp.reshape(attend_end, start.shape)
    sees = start < end
    lowest = jnp.min(jnp.where(sees, start, num_key_blocks * block_k), axis=-1)[..., None]
    highest = jnp.max(jnp.where(sees, end, 0), axis=-1)[..., None]
    left = jnp.arange(num_key_blocks, dtype=jnp.int32) * block_k
    right = left + block_k
    needed = (lowest < right) & (left < highest)
    whole = (jnp.max(start, axis=-1)[..., None] <= left) & (
        right <= jnp.min(end, axis=-1)[..., None]
    )
    return needed.astype(jnp.int32) + (needed & whole).astype(jnp.int32)


def list_steps(kinds: Int[jax.Array, "B outer inner"]) -> Steps:
    """The steps of every outer block, from its first needed inner block to its last.

    Args:
      kinds: [B, outer, inner] of `block_kinds`, or with the last two axes swapped.
    """
    rows, outer, inner = kinds.shape
    needed = kinds > EMPTY
    low = jnp.argmax(needed, axis=-1).astype(jnp.int32)
    high = inner - jnp.argmax(needed[..., ::-1], axis=-1).astype(jnp.int32)
    # An outer block that needs no inner one has one step, which writes its zeros.
    count = jnp.where(jnp.any(needed, axis=-1), high - low, 1)
    stop = jnp.cumsum(count, axis=-1, dtype=jnp.int32)
    index = jnp.arange(outer * inner, dtype=jnp.int32)
    passed = jnp.sum(index[:, None] >= stop[:, None, :], axis=-1, dtype=jnp.int32)
    at = jnp.minimum(passed, outer - 1)

    def pick(values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, at, axis=-1)

    begin = pick(stop - count)
    inner_block = pick(low) + jnp.minimum(index - begin, pick(count) - 1)
    kind = jnp.take_along_axis(kinds.reshape(rows, -1), at * inner + inner_block, axis=-1)
    packed = (
        (at << _OUTER)
        | (inner_block << _INNER)
        | ((index == begin).astype(jnp.int32) << _FIRST)
        | ((index == pick(stop) - 1).astype(jnp.int32) << _LAST)
        | jnp.where(passed < outer, kind, EMPTY)
    )
    return Steps(packed.reshape(-1), jnp.max(stop[:, -1]), outer * inner)


def unpack(entry: jax.Array) -> Step:
    """The fields of a packed step."""
    return Step(
        outer=entry >> _OUTER,
        inner=(entry >> _INNER) & ((1 << (_OUTER - _INNER)) - 1),
        is_first=(entry >> _FIRST) & 1 == 1,
        is_last=(entry >> _LAST) & 1 == 1,
        kind=entry & 3,
    )
