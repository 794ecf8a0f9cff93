"""The prefill: the keys and values of prompts, in new caches or behind what caches hold."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.config.model import ResolvedModel
from glm_jax.generation.bans import AnyArray
from glm_jax.generation.cache import LayerCache, empty_cache, with_length
from glm_jax.generation.slots import Decodable


def prefill(
    model: Decodable,
    tokens: Int[AnyArray, "B T"],
    length: Int[AnyArray, " B"],
    *,
    config: ResolvedModel,
    size: int,
    width: int,
    caches: Sequence[LayerCache] | None = None,
    kept: Int[AnyArray, " B"] | None = None,
) -> list[LayerCache]:
    """Runs the first tokens of rows, and returns their caches.

        kept 2, length 5, width 2        k k N N . . . .    first call
                                         k k N N N . . .    second call; the last slot is padding

    For use inside jit, with the mesh of the parameters set.

    Args:
      model: bound to its parameters.
      tokens: rows, padded; T is a multiple of `width`.
      length: number of tokens of each row to run. If the model fills blanks, they all attend to
        each other; otherwise attention is causal. The tokens behind them are computed too, and no
        query attends to them.
      config: of the model.
      size: slots of the caches.
      width: tokens in one call of the model: T if they all attend to each other.
      caches: of the same rows, of a causal model, donated or not used again; None: empty ones.
      kept: number of slots that `caches` hold of each row, which are not run again. From there on
        a multiple of `width` slots is written, which must end within `size`.
    """
    first = jnp.zeros_like(length) if kept is None else jnp.asarray(kept)

    def run(index: jax.Array | int, caches: list[LayerCache]) -> list[LayerCache]:
        start = first + index * width
        return read_chunk(model, tokens, start, length, caches, width, config.fills_blanks)[1]

    filled = empty_cache(config, len(tokens), size) if caches is None else list(caches)
    if tokens.shape[1] == width and kept is None:
        return with_length(run(0, filled), jnp.asarray(length))
    calls = (jnp.max(length - first) + width - 1) // width
    return with_length(jax.lax.fori_loop(0, calls, run, filled), jnp.asarray(length))


def read_chunk(
    model: Decodable,
    tokens: Int[AnyArray, "B T"],
    start: Int[AnyArray, " B"],
    length: Int[AnyArray, " B"],
    caches: Sequence[LayerCache],
    width: int,
    fills: bool,
) -> tuple[Float[Array, "B {width} D"], list[LayerCache]]:
    """Runs `width` tokens of rows, from slot `start` of each on.

    Args:
      model, tokens, length, caches: as of `prefill`; all `width` slots must be within the caches.
      fills: all tokens of a row attend to each other; otherwise attention is causal.

    Returns:
      The hidden states, and the caches with as many slots filled as before.
    """
    slot = jnp.asarray(start)[:, None] + jnp.arange(width, dtype=jnp.int32)
    inside, zeros = slot < length[:, None], jnp.zeros_like(slot)
    end = length[:, None] if fills else slot + 1
    return model.extend(
        jnp.take_along_axis(jnp.asarray(tokens), slot, axis=1, mode="clip"),
        jnp.where(inside, slot, 0),
        zeros,
        zeros,
        jnp.where(inside, end, 0),
        with_length(caches, jnp.asarray(start)),
    )
