"""The prefill: the keys and values of prompts, written into new caches."""

import jax
import jax.numpy as jnp
from jaxtyping import Int

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
) -> list[LayerCache]:
    """Runs the first tokens of rows, and returns their caches.

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
    """
    zeros = jnp.zeros((len(tokens), width), jnp.int32)

    def run(index: jax.Array | int, caches: list[LayerCache]) -> list[LayerCache]:
        start = index * width
        slot = start + jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), zeros.shape)
        inside = slot < length[:, None]
        end = length[:, None] if config.fills_blanks else slot + 1
        _, caches = model.extend(
            jax.lax.dynamic_slice_in_dim(tokens, start, width, axis=1),
            jnp.where(inside, slot, 0),
            zeros,
            zeros,
            jnp.where(inside, end, 0),
            with_length(caches, jnp.full_like(length, start)),
        )
        return caches

    caches = empty_cache(config, len(tokens), size)
    if tokens.shape[1] == width:
        return with_length(run(0, caches), jnp.asarray(length))
    calls = (jnp.max(length) + width - 1) // width
    return with_length(jax.lax.fori_loop(0, calls, run, caches), jnp.asarray(length))
