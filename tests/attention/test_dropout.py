import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.dropout import dropout, keep_mask, row_seeds

SHAPE = (4, 8, 256, 256)
SIZE = np.prod(SHAPE)


def centred(seed, rate=0.1):
    return np.asarray(keep_mask(jax.random.key(seed), rate, SHAPE), np.float64) - (1 - rate)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_rate_is_met(rate):
    assert abs(centred(0, rate).mean()) < 5 * np.sqrt(rate * (1 - rate) / SIZE)


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_neighbours_are_independent(axis, lag):
    mask = np.moveaxis(centred(1), axis, 0)
    product = mask[lag:] * mask[:-lag]
    assert abs(product.mean()) < 5 * 0.09 / np.sqrt(product.size)


def test_keys_are_independent():
    product = centred(2) * centred(3)
    assert abs(product.mean()) < 5 * 0.09 / np.sqrt(SIZE)


def test_counts_of_a_row_spread_as_they_should():
    """A generator of short period or few planes would spread them too little or too much."""
    counts = (centred(4) + 0.9).sum(axis=-1)
    expected = 256 * 0.09
    assert abs(counts.var() / expected - 1) < 5 * np.sqrt(2 / counts.size)


def test_rows_differ_in_stride_too(monkeypatch):
    """Else one row could be another one moved along."""
    start_and_stride = jnp.array([[7, 7], [1, 12]], jnp.uint32).reshape(2, 2, 1, 1)
    monkeypatch.setattr(jax.random, "bits", lambda *arguments: start_and_stride)
    one, two = np.asarray(keep_mask(jax.random.key(0), 0.5, (2, 16, 16)))
    assert (one != two).any()


def test_strides_are_odd():
    """An even one would run through half of the numbers or fewer before it comes again."""
    start, stride = np.asarray(row_seeds(jax.random.key(0), (64, 64)))
    assert (stride % 2 == 1).all()
    assert 0.4 < (start % 2).mean() < 0.6
    assert len(np.unique(stride)) == stride.size


def test_a_share_is_zeroed_and_the_rest_scaled():
    x = jnp.full((64, 64), 3.0)
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, 4.0}
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(0)), x)
    assert not np.asarray(dropout(x, 1.0, jax.random.key(0))).any()
