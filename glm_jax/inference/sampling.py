"""Choosing the next id from its scores: greedy, temperature, top-k, top-p."""

import dataclasses

import jax
import jax.numpy as jnp

from glm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How ids are drawn; applied in the order temperature, top-k, top-p.

    Attributes:
      temperature: scores are divided by it; 0 takes the best id and draws nothing.
      top_k: only the k best ids; 0: all.
      top_p: only the best ids that together reach this probability, one at least; 1: all.
      seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.temperature < 0:
            raise UserError(f"temperature must be at least 0; got {self.temperature}")
        if self.top_k < 0:
            raise UserError(f"top_k must be at least 0 (0: no limit); got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p must be above 0 and at most 1; got {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0


def greedy(logits: jax.Array) -> jax.Array:
    """The best id, the lower of equals: [..., V] -> int32 [...]."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample(
    logits: jax.Array,
    key: jax.Array,
    temperature: jax.Array | float,
    top_k: jax.Array | int,
    top_p: jax.Array | float,
) -> jax.Array:
    """Draws ids by `Sampling`'s rules: [..., V] -> int32 [...]."""
    logits = filter_logits(logits / temperature, top_k, top_p)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def filter_logits(logits: jax.Array, top_k: jax.Array | int, top_p: jax.Array | float) -> jax.Array:
    """Scores with -inf where top-k or top-p rule an id out; ids equal to the last one stay.

        probabilities .5 .2 .2 .1, top_p .6 -> .5 .2 .2 0      top_k 1 -> .5 0 0 0

    Args:
      logits: [..., V] float32.
      top_k: 0 for all.
      top_p: 1 for all; taken over the probabilities that top-k has left, made to sum to 1.
    """
    ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    last = jnp.where(top_k > 0, jnp.minimum(top_k, logits.shape[-1]), logits.shape[-1]) - 1
    ranked = jnp.where(jnp.arange(logits.shape[-1]) <= last, ranked, -jnp.inf)
    probabilities = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # Rounding may bring `before` to 1 too early: top_p = 1 must keep every id.
    kept = (before < top_p) | (top_p >= 1.0)
    lowest = jnp.min(jnp.where(kept & (ranked > -jnp.inf), ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= lowest, logits, -jnp.inf)
