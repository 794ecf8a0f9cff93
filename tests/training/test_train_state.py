import jax
import jax.numpy as jnp

from glm_jax.training.train_state import TrainState


def test_a_state_joins_what_is_trained_and_what_is_not():
    one, two = jnp.ones(2), jnp.zeros(3)
    state = TrainState(jnp.int32(4), {"a": {"kernel": one}}, {"a": {"bias": two}}, ())
    assert state.params == {"a": {"kernel": one, "bias": two}}
    assert TrainState(jnp.int32(0), {"a": one}, {}, ()).params == {"a": one}


def test_a_state_is_one_tree_of_arrays():
    state = TrainState(jnp.int32(4), {"a": jnp.ones(2)}, {}, ())
    doubled = jax.tree.map(lambda leaf: 2 * leaf, state)
    assert int(doubled.step) == 8
    assert doubled.trainable["a"].tolist() == [2, 2]
