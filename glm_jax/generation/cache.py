"""The KV cache: keys and values of the slots that a row has computed, for the slots to come.

Every row is filled from slot 0 and written at its own length, so rows of different lengths share
one array and nothing is padded on the left:

    length [3, 1], two more slots each       row 0  k k k N N . . .
                                             row 1  k N N . . . . .

Slots from a row's length on are in no query's interval, so they are never cleared. The slots of a
head are contiguous in memory: a step multiplies with the cache without transposing it.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.config.model import ResolvedModel

# Tokens of a text in one call of a prefill: this bounds memory and the number of compiled shapes.
CHUNK = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """The keys and values of one layer.

    Attributes:
      keys, values: [B, K, S, H], S slots.
      length: [B] int32, slots filled; the next call writes from there on.
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array

    def append(
        self, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]
    ) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"], "LayerCache"]:
        """Writes T slots from each row's length on.

        Returns:
          All keys, all values, and the cache with `length` unchanged: the caller knows how many of
          the T slots count (`with_length`).
        """
        keys, values = _write(self.keys, k, self.length), _write(self.values, v, self.length)
        cache = LayerCache(keys, values, self.length)
        # Attention turns the axes back, and XLA drops both.
        return jnp.moveaxis(keys, 1, 2), jnp.moveaxis(values, 1, 2), cache


def empty_cache(config: ResolvedModel, batch_size: int, size: int) -> list[LayerCache]:
    """An empty cache of `size` slots per layer, in `compute.dtype`."""
    shape = (batch_size, config.num_kv_heads, size, config.head_dim)
    return [
        LayerCache(
            jnp.zeros(shape, config.compute.dtype),
            jnp.zeros(shape, config.compute.dtype),
            jnp.zeros(batch_size, jnp.int32),
        )
        for _ in range(config.num_layers)
    ]


def cache_parts(config: ResolvedModel, tensor: int) -> int:
    """Parts of each cache over a tensor axis of so many devices: one each, or all on every device.

    An axis splits the heads of keys, if it divides them: of 2 heads, 2 -> 2, 4 -> 1.
    """
    return tensor if config.num_kv_heads % tensor == 0 else 1


def with_length(caches: Sequence[LayerCache], length: Int[Array, " B"]) -> list[LayerCache]:
    """The same caches with `length` slots of each row counted as filled."""
    return [dataclasses.replace(cache, length=length) for cache in caches]


def bucket(length: int) -> int:
    """The next of 64, 128, 256, 512, 1024, 1536, .., so that few shapes are compiled.

    >>> [bucket(n) for n in (1, 64, 65, 512, 513, 1025)]
    [64, 64, 128, 512, 1024, 1536]
    """
    size = 64
    while size < length and size < 512:
        size *= 2
    return size if length <= size else -(-length // 512) * 512


def power_of_two(number: int) -> int:
    """The next power of two, for batch sizes, so that few shapes are compiled.

    >>> [power_of_two(n) for n in (1, 3, 8, 9)]
    [1, 4, 8, 16]
    """
    return 1 << (number - 1).bit_length()


def _write(whole: jax.Array, new: jax.Array, at: jax.Array) -> jax.Array:
    """Writes new [B, T, K, H] into whole [B, K, S, H], each row from its own slot `at` on."""

    def row(whole: jax.Array, new: jax.Array, at: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(whole, new, (0, at, 0))

    return jax.vmap(row)(whole, jnp.moveaxis(new, 1, 2).astype(whole.dtype), at)
