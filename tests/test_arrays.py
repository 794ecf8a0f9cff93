"""Shapes in annotations are checked while tests run; a wrong one must be seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from glm_jax.attention.dispatch import attention
from glm_jax.losses.by_objective import cross_entropy
from glm_jax.models.layers import rms_norm

Q, KV = jnp.zeros((2, 6, 4, 8)), jnp.zeros((2, 7, 2, 8))
BOUNDS = np.zeros((2, 6), np.int32)


def test_right_shapes_pass_under_tracing_too():
    assert jax.eval_shape(attention, Q, KV, KV, BOUNDS, BOUNDS).shape == Q.shape


@pytest.mark.parametrize(
    "arguments",
    [
        (Q, KV, KV, BOUNDS[:, :5], BOUNDS),  # bounds of fewer queries
        (Q, KV, KV[:, 1:], BOUNDS, BOUNDS),  # fewer values than keys
        (Q, KV[..., :4], KV, BOUNDS, BOUNDS),  # another head dimension
        (Q[0], KV, KV, BOUNDS, BOUNDS),  # no batch
        (Q, KV, KV, BOUNDS.astype(np.float32), BOUNDS),  # bounds that are no integers
    ],
)
def test_wrong_shapes_are_seen(arguments):
    with pytest.raises(TypeCheckError):
        attention(*arguments)


def test_every_package_with_the_hook_is_checked():
    with pytest.raises(TypeCheckError):
        rms_norm(jnp.zeros((2, 3)), jnp.zeros(4), 1e-5)
    with pytest.raises(TypeCheckError):
        cross_entropy(jnp.zeros((2, 3, 8)), jnp.zeros((2, 2), jnp.int32))
