"""The reference: what a run begins with, kept beside what is trained."""

import json

import jax
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.models.trees import to_paths
from glm_jax.training.rollouts.reference import FILE, Reference


def test_of_an_adapter_it_is_the_adapter_as_it_was_drawn(policy_of):
    """b is 0, so the reference is the base; the base's arrays are the policy's own."""
    policy = policy_of(lora={"rank": 2, "dropout": 0.0}, policy={"reference": True})
    reference = Reference(policy.config, policy.mesh, policy.params)
    whole = reference.params(policy.state.frozen)
    kept = jax.tree.leaves(reference._trainable)
    assert sum(leaf.size for leaf in kept) < 0.2 * sum(leaf.size for leaf in jax.tree.leaves(whole))
    leaves = to_paths(whole)
    assert leaves["embedding/table"] is to_paths(policy.state.frozen)["embedding/table"]
    prompts = next(policy.stream())
    (batch,) = policy.making(policy.state.params, whole, prompts, 0).batches
    there = batch.loss_weights > 0
    np.testing.assert_allclose(batch.reference[there], batch.old[there], atol=1e-6)


def test_of_a_whole_model_it_is_a_copy(policy_of):
    policy = policy_of(policy={"reference": True})
    reference = Reference(policy.config, policy.mesh, policy.params)
    before = jax.tree.map(np.asarray, reference.params({}))
    jax.tree.map(lambda leaf: leaf.delete(), policy.state.trainable)
    jax.tree.map(np.testing.assert_array_equal, reference.params({}), before)


def test_another_reference_is_refused(policy_of, tmp_path):
    policy = policy_of(policy={"kl_beta": 0.1})
    Reference(policy.config, policy.mesh, policy.params).check(tmp_path)
    assert set(json.loads((tmp_path / FILE).read_text())) == {"fingerprint"}
    Reference(policy.config, policy.mesh, policy.params).check(tmp_path)
    other = jax.tree.map(lambda leaf: leaf * 2, policy.params)
    with pytest.raises(UserError, match=r"is held to another model than train.init_from has now"):
        Reference(policy.config, policy.mesh, other).check(tmp_path)
