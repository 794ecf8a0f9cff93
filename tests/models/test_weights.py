import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.models.weights import Master, is_matrix, settle


def test_the_gradient_of_a_master_is_that_of_the_value_it_is_used_as():
    value = jnp.array([[1.001, -2.0], [3.0, 0.5]])
    x = jnp.array([[2.0, 1.0]], jnp.bfloat16)

    def loss(value, site):
        used = settle({"kernel": Master(value, site)})["kernel"]
        assert used.dtype == jnp.bfloat16
        return jnp.sum(jnp.square(x @ used).astype(jnp.float32))

    site = jnp.zeros(value.shape, jnp.bfloat16)
    to_value, to_site = jax.grad(loss, (0, 1))(value, site)
    expected = jax.grad(lambda w: jnp.sum(jnp.square(x @ w).astype(jnp.float32)))(
        value.astype(jnp.bfloat16)
    )
    assert to_site.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(to_site), np.float32(expected))
    assert not to_value.any()


def test_only_matrices_are_cast():
    assert is_matrix("layers/0/mlp/up/kernel")
    assert is_matrix("positions/block_table")
    assert not is_matrix("layers/0/mlp/up/bias")
    assert not is_matrix("final_norm/scale")
