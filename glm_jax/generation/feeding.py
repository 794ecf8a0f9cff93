"""One step of rows that grow token by token."""

import jax
import jax.numpy as jnp

from glm_jax.generation.cache import LayerCache, with_length
from glm_jax.models.transformer import Transformer


def feed(
    model: Transformer,
    caches: list[LayerCache],
    length: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    block_positions: jax.Array,
) -> tuple[jax.Array, list[LayerCache]]:
    """Feeds each row one token, which sees all that lies in the row's cache and itself.

    Args:
      caches: one a layer; written behind `length`, which is not moved on.
      length: [B] int32, places of each row that count.
      tokens, positions, block_positions: [B] int32.

    Returns:
      (scores of the next id, float32 [B, V]; the caches).
    """
    hidden, caches = model.extend(
        tokens[:, None],
        positions[:, None],
        block_positions[:, None],
        jnp.zeros_like(tokens)[:, None],
        length[:, None] + 1,
        with_length(caches, length),
    )
    return model.logits(hidden[:, 0]), caches
