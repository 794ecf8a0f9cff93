import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.models.params import create_params
from glm_jax.models.trees import stack_layers, unstack_layers
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.optimizer.adafactor import moment_axes, scale_by_factored_moments
from glm_jax.training.state import abstract_state, create_state, num_bytes
from glm_jax.training.step import make_train_step


def updates_of(transform, params, gradients):
    state = transform.init(params)
    for gradient in gradients:
        updates, state = transform.update(gradient, state, params)
    return updates, state


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_a_matrix_is_scaled_as_optax_does():
    """Three updates of one [256, 130] matrix; optax has the article's algorithm in parts."""
    params = {"embedding": {"table": draw(256, 130)}}
    gradients = [{"embedding": {"table": draw(256, 130, seed=s) * 10**s}} for s in (1, 2, 3)]
    theirs = optax.chain(optax.scale_by_factored_rms(decay_rate=0.8), optax.clip_by_block_rms(1.0))
    expected, _ = updates_of(theirs, params, gradients)
    ours, state = updates_of(scale_by_factored_moments(), params, gradients)
    np.testing.assert_allclose(
        ours["embedding"]["table"], expected["embedding"]["table"], rtol=2e-5
    )
    assert state.rows["embedding"]["table"].shape == (256,)
    assert state.columns["embedding"]["table"].shape == (130,)
    assert state.squares["embedding"]["table"].shape == (1,)


def test_the_drawn_example():
    """Squares of rank one are estimated exactly: every entry of the first update is a sign."""
    gradient = jnp.tile(jnp.array([[1.0, 2.0], [-2.0, 4.0]]), (64, 64))
    params = {"output": {"table": jnp.zeros_like(gradient)}}
    updates, state = updates_of(
        scale_by_factored_moments(), params, [{"output": {"table": gradient}}]
    )
    np.testing.assert_allclose(state.rows["output"]["table"][:2], [2.5, 10])
    np.testing.assert_allclose(state.columns["output"]["table"][:2], [2.5, 10])
    np.testing.assert_allclose(updates["output"]["table"], jnp.sign(gradient), rtol=1e-6)


def test_heads_are_one_side_of_a_matrix():
    assert moment_axes("layers/attention/query/kernel", 4) == ((1,), (2, 3))
    assert moment_axes("layers/0/attention/out/kernel", 3) == ((0, 1), (2,))
    assert moment_axes("layers/mlp/down/kernel", 3) == ((1,), (2,))
    assert moment_axes("embedding/table", 2) == ((0,), (1,))
    assert moment_axes("layers/attention_norm/scale", 2) == ((1,), ())


MODEL = ModelConfig(vocab_size=130, num_layers=2, embed_dim=128, num_heads=2, max_positions=16)


def test_stacked_layers_are_scaled_as_listed_ones():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    listed = unstack_layers(create_params(MODEL.resolved(), mesh, seed=0))
    gradients = [jax.tree.map(lambda p, s=s: p * s + s, listed) for s in (1.0, 30.0)]
    transform = scale_by_factored_moments()
    expected, _ = updates_of(transform, listed, gradients)
    ours, state = updates_of(
        transform, stack_layers(listed), [stack_layers(gradient) for gradient in gradients]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        unstack_layers(ours),
        expected,
    )
    assert state.rows["layers"]["attention"]["query"]["kernel"].shape == (2, 128)
    assert state.columns["layers"]["attention"]["query"]["kernel"].shape == (2, 2, 64)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_run_learns_with_a_tenth_of_the_moments(config, batch, scanned):
    model = dataclasses.replace(
        config.model, embed_dim=128, dropout_rate=0.0, attention_dropout_rate=0.0
    )
    optimizer = dataclasses.replace(config.optimizer, name="adafactor")
    compute = ComputeConfig(scan_layers=scanned)
    config = dataclasses.replace(config, model=model, optimizer=optimizer, compute=compute)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state, step = create_state(config, mesh), make_train_step(config, mesh)
    like = abstract_state(config, mesh)
    assert jax.tree.map(jnp.shape, state.opt_state) == jax.tree.map(jnp.shape, like.opt_state)
    assert num_bytes(like.opt_state) < 0.1 * num_bytes(like.params)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.5
