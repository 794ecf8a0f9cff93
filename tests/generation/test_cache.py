import dataclasses

import jax.numpy as jnp
import numpy as np

from glm_jax.config import ComputeConfig, ModelConfig
from glm_jax.generation.cache import (
    LayerCache,
    bucket,
    cache_parts,
    empty_cache,
    power_of_two,
    with_length,
)


def test_rows_are_written_behind_their_own_length():
    old = jnp.zeros((2, 1, 6, 1))  # [B, K, S, H]
    new = jnp.arange(1.0, 5.0).reshape(2, 2, 1, 1)
    cache = LayerCache(old, old - 1, jnp.array([3, 0], jnp.int32))
    keys, values, cache = cache.append(new, -new)
    np.testing.assert_array_equal(keys[:, :, 0, 0], [[0, 0, 0, 1, 2, 0], [3, 4, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        values[:, :, 0, 0], [[-1, -1, -1, -1, -2, -1], [-3, -4, -1, -1, -1, -1]]
    )
    np.testing.assert_array_equal(cache.length, [3, 0])
    (longer,) = with_length([cache], jnp.array([5, 1], jnp.int32))
    np.testing.assert_array_equal(longer.length, [5, 1])
    assert longer.keys is cache.keys


def test_an_empty_cache_has_the_shape_of_the_model():
    config = ModelConfig(num_layers=3, embed_dim=32, num_heads=4)
    config = config.resolved(ComputeConfig(dtype="bfloat16"))
    caches = empty_cache(config, 2, 64)
    assert len(caches) == 3
    assert caches[0].keys.shape == caches[2].values.shape == (2, 4, 64, 8)
    grouped = dataclasses.replace(config, num_kv_heads=2)
    assert empty_cache(grouped, 2, 64)[0].keys.shape == (2, 2, 64, 8)
    assert caches[0].keys.dtype == jnp.bfloat16


def test_an_axis_splits_the_heads_of_keys_that_it_divides():
    config = ModelConfig(vocab_size=50, embed_dim=32, num_heads=4, num_kv_heads=2).resolved()
    assert [cache_parts(config, tensor) for tensor in (1, 2, 4)] == [1, 2, 1]


def test_buckets_are_few_and_never_too_small():
    sizes = [bucket(length) for length in range(1, 4097)]
    assert all(size >= length for length, size in enumerate(sizes, 1))
    assert sorted(set(sizes)) == [64, 128, 256, *range(512, 4097, 512)]


def test_batches_are_powers_of_two():
    assert [power_of_two(number) for number in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 16]
