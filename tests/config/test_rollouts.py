"""The section `rollouts`: its values, and what goes together with a loss."""

import dataclasses

import pytest

from glm_jax.config import (
    Config,
    ExamplesConfig,
    LoraConfig,
    ModelConfig,
    RolloutsConfig,
    TrainConfig,
)
from glm_jax.errors import UserError

STILL = ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0)
GIVEN = {"group_size": 4, "reward": "a.py:f"}


def config_of(loss="grpo", model=None, train=None, form="prompts", lora=None, **settings):
    return Config(
        model=model or STILL,
        examples=ExamplesConfig(format=form),
        train=TrainConfig(loss=loss, **{"num_steps": 40, "checkpoint_every": 20, **(train or {})}),
        data=dataclasses.replace(Config().data, source="a.jsonl", batch_size=8),
        rollouts=RolloutsConfig(**{**GIVEN, **settings}),
        lora=lora or LoraConfig(),
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"group_size": 0}, "rollouts.group_size must be at least 1; got 0"),
        ({"temperature": 0.0}, r"rollouts.temperature must be at least 0.01; got 0"),
        ({"reward_seconds": 0.0}, "rollouts.reward_seconds must be above 0"),
        ({"failed_reward": float("nan")}, "rollouts.failed_reward must be a finite number"),
        ({"truncated": "drop"}, "rollouts.truncated must be one of"),
        ({"reward": "a.py"}, "rollouts.reward must be a file and a function in it"),
        ({"reward": "a.txt:f"}, "rollouts.reward must be a file and a function in it"),
        ({"slots": 0}, "rollouts.slots must be at least 1"),
    ],
)
def test_values(settings, said):
    with pytest.raises(UserError, match=said):
        RolloutsConfig(**settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"form": "messages"}, "examples.format='prompts' and a loss over answers .* go together"),
        ({"loss": "pretraining"}, "examples.format='prompts' and a loss over answers"),
        ({"reward": None}, "takes one of rollouts.reward, .*; got None and None"),
        ({"reward_model": "dir"}, "takes one of rollouts.reward, .* got 'a.py:f' and 'dir'"),
        ({"group_size": 3}, "data.batch_size must be a multiple of rollouts.group_size=3; got 8"),
        ({"group_size": 1}, "rollouts.group_size must be 2 at least; got 1"),
        ({"passes": 3}, r"train.num_steps must be a multiple of the 3 steps .* got 40"),
        ({"batches": 2, "passes": 4}, r"train.checkpoint_every must be a multiple of the 8 .* 20"),
        ({"max_new_tokens": 512}, "rollouts.max_new_tokens=512 leaves no slots for a prompt"),
        ({"loss": "ppo"}, "train.loss='ppo' needs model.value_head=True"),
        ({"lora": LoraConfig(rank=2, dropout=0.1)}, "set to 0 what is not: lora.dropout=0.1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    config_of()
    with pytest.raises(UserError, match=said):
        config_of(**changes)


def test_dropout_is_refused():
    with pytest.raises(UserError, match=r"with the one that answered, and dropout .*rate=0.1"):
        config_of(model=dataclasses.replace(STILL, dropout_rate=0.1))


def test_options_that_do_nothing_are_refused():
    with pytest.raises(UserError, match=r"rollouts.group_size=4 does nothing with train.loss="):
        Config(rollouts=RolloutsConfig(group_size=4))


def test_a_cycle_has_batches_times_passes_steps():
    assert config_of(batches=2, passes=5, train={"num_steps": 40}).rollouts.steps == 10
