"""What the backward kernels are given; their gradients are in test_interval_attention.py."""

import jax.numpy as jnp
import numpy as np

from glm_jax.attention.tpu.backward import score_shift


def test_the_shift_sums_the_columns_of_a_head():
    rng = np.random.default_rng(0)
    out, d_out = jnp.asarray(rng.normal(size=(2, 2, 6, 4 * 5)), jnp.float32)
    d_lse = jnp.asarray(rng.normal(size=(2, 4, 1, 6)), jnp.float32)
    products = (np.asarray(out, np.float64) * d_out).reshape(2, 6, 4, 5).sum(-1)
    expected = np.moveaxis(products, 1, 2)[:, :, None] - d_lse
    np.testing.assert_allclose(score_shift(out, d_out, d_lse, 4), expected, atol=1e-6)
