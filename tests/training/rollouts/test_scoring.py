"""Scores of answers: those of the training step's own function, at the temperature of sampling."""

import jax
import numpy as np

from glm_jax.losses.by_objective import hidden_of
from glm_jax.models.params import bind


def test_scores_are_log_softmax_at_the_temperature(policy_of):
    policy = policy_of("causal", "ppo", rollouts={"temperature": 0.7, "batches": 2})
    prompts = next(policy.stream())
    batches = policy.making(policy.params, None, prompts, 0).batches
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    other = jax.tree.map(lambda leaf: leaf * 1.1, policy.params)
    scores = policy.scorer(policy.params, other, whole)
    there = whole.loss_weights > 0
    for params, found in ((policy.params, scores.log_probs), (other, scores.reference)):
        model = bind(policy.config.resolved_model, params)
        hidden = hidden_of(model, whole)
        logits = np.asarray(model.logits(hidden), np.float64) / 0.7
        normal = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        wanted = np.take_along_axis(normal, whole.targets[..., None], -1)[..., 0]
        np.testing.assert_allclose(found[there], wanted[there], atol=2e-5)
        assert (found[~there] == 0).all()
    model = bind(policy.config.resolved_model, policy.params)
    values = np.asarray(model.values(hidden_of(model, whole)))
    np.testing.assert_allclose(scores.values[there], values[there], atol=1e-5)


def test_without_a_reference_there_is_none(policy_of):
    policy = policy_of()
    (batch,) = policy.making(policy.params, None, next(policy.stream()), 0).batches
    scores = policy.scorer(policy.params, None, batch)
    assert scores.reference is scores.values is None
