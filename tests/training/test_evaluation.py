import jax
import numpy as np
import pytest

from glm_jax.batch import OBJECTIVES, SPAN
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.evaluation import Evaluator
from glm_jax.training.state import create_state


@pytest.fixture
def batches(stream):
    """Two batches with different numbers of targets, so that a mean of means would differ."""
    one = stream()
    first, second = next(one), next(one)
    weights = second.loss_weights.copy()
    weights[:3] = 0
    second = type(second)(**{**second.to_dict(), "loss_weights": weights})
    return [first, second]


@pytest.fixture
def counts():
    return np.random.default_rng(0).integers(0, 9, (5, 32)).astype(float)


def test_means_over_all_targets_at_once(config, batches, counts):
    params = create_state(config, make_mesh(config.mesh)).params
    found = Evaluator(config, make_mesh(config.mesh), batches, counts)(params)
    losses, present, objective, targets = (
        np.concatenate([np.asarray(pick(batch)) for batch in batches])
        for pick in (
            jax.jit(lambda batch: token_losses(bind(config.resolved_model, params), batch)),
            lambda batch: batch.loss_weights > 0,
            lambda batch: batch.objective,
            lambda batch: batch.targets,
        )
    )
    span = present & (objective == SPAN)
    np.testing.assert_allclose(found["eval/loss"], losses[present].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["eval/loss/span"], losses[span].mean(), rtol=1e-5)
    every = (counts.sum(0) + 1) / (counts.sum() + 32)
    own = (counts[SPAN] + 1) / (counts[SPAN].sum() + 32)
    np.testing.assert_allclose(
        found["eval/unigram_loss"], -np.log(every[targets[present]]).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["eval/unigram_loss/span"], -np.log(own[targets[span]]).mean(), rtol=1e-5
    )
    assert np.isnan(found["eval/loss/sentence"])
    assert set(found) == {
        f"eval/{kind}{name}"
        for kind in ("loss", "unigram_loss")
        for name in ("", *[f"/{o}" for o in OBJECTIVES])
    }
