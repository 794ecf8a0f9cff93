"""Top-k and top-p without sorting: the lowest logit that stays is found by bisection.

Both limits say the same of different weights. An id stays if the ids with greater logits weigh less
than the limit: counted, less than k; by their probabilities, less than p. That sum falls as the
logit rises, so that 32 halvings find the least logit for which it holds, to the bit: float32
numbers have an order of whole numbers. Where nothing is to be found no halving is made.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.generation.bans import AnyArray


def filter_logits(
    logits: Float[Array, "*rows V"],
    top_k: Int[AnyArray, "..."] | int,
    top_p: Float[AnyArray, "..."] | float,
) -> Float[Array, "*rows V"]:
    """Sets logits to -inf that top-k or top-p excludes; logits equal to the last one kept stay.

        probabilities .5 .2 .2 .1, top_p .6 -> .5 .2 .2 0      top_k 1 -> .5 0 0 0

    Args:
      logits: float32.
      top_k: 0 for all; of a shape that broadcasts with `rows`.
      top_p: 1 for all; of the probabilities that top-k leaves, normalised to sum to 1. Of logits
        equal to the k-th greatest, as many count for that as make k.
    """
    size = logits.shape[-1]
    rows = logits.shape[:-1]
    top_k = jnp.broadcast_to(jnp.asarray(top_k, jnp.int32), rows)[..., None]
    top_p = jnp.broadcast_to(jnp.asarray(top_p, jnp.float32), rows)[..., None]
    order = _ordered(logits)
    least, greatest = (jnp.expand_dims(of(order, -1), -1) for of in (jnp.min, jnp.max))

    number = jnp.where(top_k > 0, jnp.minimum(top_k, size), size)
    each = jnp.int32(1)
    lowest = _lowest(order, each, number, least, jnp.where(top_k > 0, greatest, least))

    top = _logit(greatest)
    above = order > lowest
    equal = number - _sum_where(above, each)
    weights = jnp.exp(logits - top)
    total = _sum_where(above, weights) + equal * jnp.exp(_logit(lowest) - top)
    # Rounding may bring the sum to 1 too early: top_p = 1 must keep every id.
    most = jnp.where(top_p < 1, greatest, lowest)
    lowest = _lowest(order, weights / total, top_p, lowest, most)
    return jnp.where(logits >= _logit(lowest), logits, -jnp.inf)


def _lowest(
    order: Int[Array, "*rows V"],
    weights: Float[Array, "*rows V"] | Int[Array, ""],
    limit: Float[Array, "*rows 1"] | Int[Array, "*rows 1"],
    low: Int[Array, "*rows 1"],
    high: Int[Array, "*rows 1"],
) -> Int[Array, "*rows 1"]:
    """The least of low..high for which what lies above it in `order` weighs less than the limit.

    `high` is taken to be one: so the most probable id stays, whatever the limit is rounded to.
    """

    def halve(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # their sum would overflow
        holds = _sum_where(order > middle, weights) < limit
        # Bounds that have met stay: a GPU's NaN is the greatest number of all, and one more would
        # be the least.
        return jnp.where(holds | (low == high), low, middle + 1), jnp.where(holds, middle, high)

    def apart(bounds: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(bounds[0] < bounds[1])

    return jax.lax.while_loop(apart, halve, (low, high))[1]


def _sum_where(kept: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(kept, weights, 0), axis=-1, keepdims=True)


def _ordered(logits: jax.Array) -> jax.Array:
    """Whole numbers in the order of the logits: those of negative ones have their bits turned.

    -0 comes just below 0; that the two are equal is seen to where logits are compared.
    """
    bits = jax.lax.bitcast_convert_type(logits, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _logit(order: jax.Array) -> jax.Array:
    """The logit of a whole number of `_ordered`, which is its own inverse."""
    bits = order ^ ((order >> 31) & 0x7FFFFFFF)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
