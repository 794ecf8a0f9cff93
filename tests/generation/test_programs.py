"""The programs that move rows between slots; tests of the engine look at what they compute."""

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generation import programs
from glm_jax.generation.cache import LayerCache
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling


def test_a_grown_cache_holds_what_it_held():
    keys = jnp.arange(2 * 1 * 3 * 2, dtype=jnp.float32).reshape(2, 1, 3, 2)
    (grown,) = programs.grow([LayerCache(keys, keys + 1, jnp.array([3, 1]))], 5)
    np.testing.assert_array_equal(grown.keys[:, :, :3], keys)
    np.testing.assert_array_equal(grown.values[:, :, :3], keys + 1)
    np.testing.assert_array_equal(grown.keys[:, :, 3:], 0)
    np.testing.assert_array_equal(grown.length, [3, 1])


def test_rows_are_put_and_taken_whole(causal_lm):
    engine = Engine(causal_lm.config, causal_lm.params)
    prompts = [Prompt([n, n + 1], Limits([3], 4), Sampling(seed=n)) for n in (5, 6, 7)]
    slots = engine.start(prompts)
    taken = programs.take(slots, np.array([2, 0, 0, 1], np.int32))
    assert jax.device_get(taken.token).tolist() == [8, 6, 6, 7]
    # The first two of the rows, into the slots 0 and 2.
    put = programs.insert(taken, np.array([0, 2], np.int32), slots)
    assert jax.device_get(put.token).tolist() == [6, 6, 7, 7]


def test_given_up_slots_have_no_answers():
    found = programs.without(jnp.array([1, 2, 3]), jnp.array([False, True, False]))
    assert found.tolist() == [1, 0, 3]
