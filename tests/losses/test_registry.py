"""A loss is an entry of a table: what a step does not know of it, a test can add."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.losses.by_objective import hidden_of, token_losses
from glm_jax.losses.registry import LOSSES, Loss, loss_of
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_eval_step, make_train_step


def squared_logits(config, mesh, model, part, coefficients, dropout_key):
    """Half the mean square of the scores of each row's first slot: small where they are 0."""
    scores = model.logits(hidden_of(model, part, dropout_key)[:, 0])
    squares = 0.5 * jnp.sum(coefficients[:, None] * scores**2)
    return squares, {"squares": jax.lax.stop_gradient(squares), "rows": jnp.float32(len(scores))}


SQUARES = Loss(
    coefficients=lambda config, batch: jnp.full(batch.shape[0], 1.0 / batch.shape[0]),
    sums=squared_logits,
    summarize=lambda config, sums: {"loss": sums["squares"], "rows": sums["rows"]},
)


@pytest.fixture
def with_squares(config, change, monkeypatch):
    monkeypatch.setitem(LOSSES, "squares", SQUARES)
    for name in ("model.dropout_rate", "model.attention_dropout_rate"):
        config = change(config, name, 0.0)
    return change(config, "train.loss", "squares")


def test_a_registered_loss_is_trained_and_evaluated(with_squares, batch):
    mesh = make_mesh(with_squares.mesh)
    state, step = create_state(with_squares, mesh), make_train_step(with_squares, mesh)
    model = bind(with_squares.resolved_model, state.params)
    scores = model.logits(hidden_of(model, batch)[:, 0])
    expected = 0.5 * float((scores**2).sum(-1).mean())
    found = make_eval_step(with_squares, mesh)(state.params, batch)
    np.testing.assert_allclose(found["squares"], expected, rtol=1e-5)
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    assert losses[-1] < 0.2 * losses[0]
    assert set(metrics) == {"loss", "rows", "grad_norm", "learning_rate"}


def test_micro_batches_add_up(with_squares, change, batch):
    mesh = make_mesh(with_squares.mesh)
    whole, parts = (
        make_train_step(config, mesh)(create_state(config, mesh), batch)[1]
        for config in (with_squares, change(with_squares, "train.accumulation_steps", 2))
    )
    for name in ("loss", "rows", "grad_norm"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


def test_pretraining_is_the_mean_cross_entropy_of_the_targets(config, batch):
    mesh = make_mesh(config.mesh)
    model = bind(config.resolved_model, create_state(config, mesh).params)
    loss, train = loss_of(config), config.train
    coefficients = loss.coefficients(train, batch)
    value, sums = loss.sums(train, mesh, model, batch, coefficients, None)
    weights = np.asarray(batch.loss_weights)
    expected = (np.asarray(token_losses(model, batch)) * weights).sum() / weights.sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(loss.summarize(train, sums)["loss"], expected, rtol=1e-5)


def test_a_loss_that_is_not_there(config, change):
    with pytest.raises(
        UserError, match=r"must be one of \['choices', .*'pretraining', 'reward'\]; got 'pre"
    ):
        loss_of(change(config, "train.loss", "pretrainig"))
