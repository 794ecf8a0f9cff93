"""Sums of rows against the logits they are made of."""

import jax
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.evaluation import rows as row_scores
from glm_jax.evaluation.rows import losses_of_targets, row_sums, total_sums
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=40, num_layers=1, embed_dim=16, num_heads=2, max_positions=32, dropout_rate=0.0
)


@pytest.fixture(scope="module")
def lm():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(CONFIG, create_params(CONFIG, mesh, 0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    shape = (5, 12)
    weights = rng.choice([0.0, 1.0, 0.5], shape).astype(np.float32)
    return Batch(
        tokens=rng.integers(0, 40, shape).astype(np.int32),
        targets=rng.integers(0, 40, shape).astype(np.int32),
        loss_weights=weights,
        positions=np.tile(np.arange(12, dtype=np.int32), (5, 1)),
        block_positions=np.zeros(shape, np.int32),
        attend_start=np.zeros(shape, np.int32),
        attend_end=np.full(shape, 12, np.int32),
        objective=np.where(weights > 0, rng.integers(1, 4, shape), 0).astype(np.int32),
    )


def test_sums_are_those_of_the_logits(lm, batch, monkeypatch):
    logits = np.asarray(lm.logits(batch), np.float64)
    # One target of each row is what the model ranks first.
    targets = batch.targets.copy()
    targets[:, 3] = logits[:, 3].argmax(-1)
    batch = Batch(**{**batch.to_dict(), "targets": targets})
    losses = (
        np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    )
    correct = logits.argmax(-1) == targets
    found = row_sums(lm, batch)
    for group in range(5):
        here = (batch.objective == group) & (batch.loss_weights > 0)
        expected = {
            "losses": (losses * here).sum(1),
            "count": here.sum(1),
            "correct": (correct & here).sum(1),
            "weighted_losses": (losses * here * batch.loss_weights).sum(1),
            "weights": (here * batch.loss_weights).sum(1),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][:, group], values, rtol=1e-5, atol=1e-5)
    assert found["correct"].sum() >= (batch.loss_weights[:, 3] > 0).sum()

    # In parts of two rows, the last of which takes one row again.
    monkeypatch.setattr(row_scores, "_MOST_LOGITS", 2 * 12 * 40)
    for name, values in row_sums(lm, batch).items():
        np.testing.assert_allclose(values, found[name], rtol=1e-6, atol=1e-6)
    total = total_sums(lm, [batch, batch])
    np.testing.assert_allclose(total["losses"], 2 * found["losses"].sum(0), rtol=1e-6)
    loss = total["weighted_losses"].sum() / total["weights"].sum()
    assert loss == pytest.approx(float(lm.loss(batch)), rel=1e-5)


def test_losses_of_targets_are_those_of_the_logits(lm, batch):
    logits = np.asarray(lm.logits(batch), np.float64)
    picked = np.take_along_axis(logits, batch.targets[..., None], -1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - picked
    expected = np.where(batch.loss_weights > 0, losses, 0.0)
    np.testing.assert_allclose(losses_of_targets(lm, batch), expected, rtol=1e-5, atol=1e-5)
