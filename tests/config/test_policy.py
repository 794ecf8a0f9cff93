"""The section `policy`: its values, and which loss reads which."""

import dataclasses

import pytest

from glm_jax.config import Config, PolicyConfig
from glm_jax.errors import UserError
from tests.config.test_rollouts import STILL, config_of


def with_policy(loss="grpo", **settings):
    model = dataclasses.replace(STILL, value_head=loss == "ppo")
    return dataclasses.replace(config_of(loss, model), policy=PolicyConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clip_low": 0.0}, "policy.clip_low must be above 0"),
        ({"clip_low": 1.5}, "policy.clip_low must be .* 1"),
        ({"kl_beta": -0.1}, "policy.kl_beta must be at least 0"),
        ({"gae_lambda": 1.1}, "policy.gae_lambda must be .* 1"),
        ({"loss_per": "row"}, "policy.loss_per must be one of"),
        ({"kl_estimator": "k4"}, "policy.kl_estimator must be one of"),
    ],
)
def test_values(settings, said):
    with pytest.raises(UserError, match=said):
        PolicyConfig(**settings)


@pytest.mark.parametrize(
    ("loss", "settings", "said"),
    [
        ("grpo", {"value_clip": 0.1}, "policy.value_clip=0.1 does nothing with train.loss='grpo'"),
        ("grpo", {"kl_in": "loss"}, "policy.kl_in='loss' does nothing with train.loss='grpo'"),
        ("grpo", {"advantages": "plain"}, r"policy.advantages must be one of \['group'"),
        ("ppo", {"advantages": "group"}, r"policy.advantages must be one of \['batch', 'plain'\]"),
        ("grpo", {"kl_estimator": "k1"}, "policy.kl_estimator='k1' does nothing without"),
        ("grpo", {"kl_by_ratio": True}, "policy.kl_by_ratio=True does nothing without"),
        ("ppo", {"kl_estimator": "k1", "kl_beta": 0.1}, "set policy.kl_beta and policy.kl_in"),
    ],
)
def test_options_of_another_loss_are_refused(loss, settings, said):
    with pytest.raises(UserError, match=said):
        with_policy(loss, **settings)


def test_pretraining_has_no_policy():
    with pytest.raises(UserError, match=r"policy.kl_beta=0.1 does nothing with train.loss='pretr"):
        Config(policy=PolicyConfig(kl_beta=0.1))


def test_where_the_divergence_goes():
    grpo, ppo = with_policy(kl_beta=0.1).policy, with_policy("ppo", kl_beta=0.1).policy
    assert (grpo.kl_weight("grpo"), ppo.kl_weight("ppo")) == (0.1, 0.0)
    assert with_policy("ppo", kl_beta=0.1, kl_in="loss").policy.kl_weight("ppo") == 0.1
    assert (grpo.scaling("grpo"), ppo.scaling("ppo")) == ("group", "batch")
    assert grpo.has_reference
    assert not PolicyConfig().has_reference
    assert PolicyConfig(reference=True).has_reference
