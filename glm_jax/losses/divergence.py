"""Estimates of the divergence of a policy from its reference, token by token."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from glm_jax.config.policy import KL_ESTIMATORS


def kl_estimates(ratio: Float[jax.Array, "..."]) -> dict[str, Float[jax.Array, "..."]]:
    """The estimators of KL(p || ref) from r = log p - log ref of a token drawn from p.

    (joschu.net/blog/kl-approx.html): k1 = r, k2 = r^2 / 2, k3 = exp(-r) - 1 + r.
    """
    found = (ratio, jnp.square(ratio) / 2, jnp.expm1(-ratio) + ratio)
    return dict(zip(KL_ESTIMATORS, found, strict=True))
