import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.attention.call import make_call
from glm_jax.attention.dropout import mask_rows

Q, K = jnp.zeros((2, 6, 4, 16)), jnp.zeros((2, 8, 2, 16))
BOUNDS = jnp.zeros((2, 6), jnp.int32)


def test_scores_are_scaled_by_the_root_of_the_head_unless_said():
    assert make_call(Q, K, K, BOUNDS, BOUNDS).scale == 0.25
    assert make_call(Q, K, K, BOUNDS, BOUNDS, scale=2.0).scale == 2.0


def test_a_key_and_a_rate_make_the_rows_of_a_mask():
    key = jax.random.key(3)
    call = make_call(Q, K, K, BOUNDS, BOUNDS, dropout_rate=0.1, dropout_key=key)
    assert call.dropout_rate == 0.1
    # [B, N, T, S]
    expected = mask_rows(key, (2, 4, 6, 8))
    np.testing.assert_array_equal(call.mask_rows.seeds, expected.seeds)
    np.testing.assert_array_equal(call.mask_rows.offsets, expected.offsets)


def test_without_either_there_is_no_dropout():
    for options in ({"dropout_rate": 0.1}, {"dropout_key": jax.random.key(3)}):
        call = make_call(Q, K, K, BOUNDS, BOUNDS, **options)
        assert (call.dropout_rate, call.mask_rows) == (0.0, None)
