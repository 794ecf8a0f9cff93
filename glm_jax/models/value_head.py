"""A value head: one scalar per slot, from the final hidden state.

    hidden [B, T, D] . vector [D]  ->  values [B, T]

It has no bias: a reward is compared with another. The vector is float32 whatever the model's other
parameters are, and no `Weight`: it is never quantised and has no adapter.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from glm_jax.config.model import ResolvedModel
from glm_jax.models.seeds import normal

NAME = "value_head"


class ValueHead(nnx.Module):
    """The vector, drawn with the standard deviation of the model's matrices; called, the values."""

    def __init__(self, config: ResolvedModel, *, key: jax.Array):
        self.vector = nnx.Param(
            normal(key, (config.embed_dim,), config.initializer_range, "float32")
        )

    def __call__(self, hidden: Float[jax.Array, "*slots D"]) -> Float[jax.Array, "*slots"]:
        """[.., D] -> float32 [..]."""
        return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), self.vector[...])


def is_value_head(name: str) -> bool:
    """Whether a parameter is one of a value head, which is float32 whatever the others are."""
    return name.startswith(f"{NAME}/")
