"""The section `preferences`: its values, and what goes together with a loss."""

import dataclasses

import pytest

from glm_jax.config import (
    Config,
    ExamplesConfig,
    LoraConfig,
    ModelConfig,
    PreferencesConfig,
    TrainConfig,
)
from glm_jax.errors import UserError

PAIRS = ExamplesConfig(format="preferences")
STILL = ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0)


def config_of(loss, model=None, **settings):
    return Config(
        model=model or STILL,
        examples=PAIRS,
        train=TrainConfig(loss=loss),
        data=dataclasses.replace(Config().data, source="a.jsonl"),
        preferences=PreferencesConfig(**settings),
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": 0.0}, r"preferences.beta must be above 0; got 0.0"),
        ({"label_smoothing": 0.6}, r"preferences.label_smoothing must be .* 0.5; got 0.6"),
        ({"margin": -1.0}, r"preferences.margin must be at least 0; got -1"),
        ({"reference": "x", "reference_free": True}, r"'x' does nothing with .*reference_free"),
    ],
)
def test_values(settings, said):
    with pytest.raises(UserError, match=said):
        PreferencesConfig(**settings)


@pytest.mark.parametrize(
    ("loss", "settings", "said"),
    [
        (
            "ipo",
            {"label_smoothing": 0.1},
            r"label_smoothing=0.1 does nothing with train.loss='ipo'",
        ),
        ("hinge", {"margin": 0.1}, r"margin=0.1 does nothing .* it is of 'dpo', 'reward'"),
        ("reward", {"beta": 0.2}, r"beta=0.2 does nothing with train.loss='reward'"),
        ("reward", {"reference": "x"}, r"reference='x' does nothing with train.loss='reward'"),
    ],
)
def test_an_option_that_does_nothing_is_refused(loss, settings, said):
    with pytest.raises(UserError, match=said):
        config_of(loss, ModelConfig(value_head=loss == "reward"), **settings)


def test_margins_of_pairs_are_of_losses_with_a_margin():
    margins = ExamplesConfig(format="preferences", margin_field="by")
    assert dataclasses.replace(config_of("dpo"), examples=margins).has_margins
    assert not config_of("dpo").has_margins
    with pytest.raises(UserError, match=r"margin_field='by' does nothing with train.loss='ipo'"):
        dataclasses.replace(config_of("ipo"), examples=margins)
    with pytest.raises(UserError, match=r"margin_field='by' does nothing with examples.format='s"):
        ExamplesConfig(format="seq2seq", margin_field="by")


def test_what_goes_together():
    with pytest.raises(UserError, match=r"go together; got examples.format=None, train.loss='dpo'"):
        Config(train=TrainConfig(loss="dpo"))
    with pytest.raises(UserError, match=r"go together; got examples.format='preferences', train"):
        config_of("pretraining")
    with pytest.raises(UserError, match=r"train.loss='reward' needs model.value_head=True"):
        config_of("reward")
    with pytest.raises(UserError, match=r"preferences.beta=0.2 does nothing"):
        Config(preferences=PreferencesConfig(beta=0.2))
    mixed = ExamplesConfig(format="preferences", pretraining_rate=0.1, pretraining_source="bundled")
    with pytest.raises(UserError, match=r"pretraining_rate must be 0 with examples.format='pref"):
        dataclasses.replace(config_of("dpo"), examples=mixed)


def test_dropout_would_be_a_part_of_the_difference():
    said = r"set to 0 what is not: model\.dropout_rate=0\.1, model\.attention_dropout_rate=0\.1$"
    with pytest.raises(UserError, match=said):
        config_of("dpo", ModelConfig())
    with pytest.raises(UserError, match=r"what is not: lora\.dropout=0\.1$"):
        dataclasses.replace(config_of("ipo"), lora=LoraConfig(rank=2))
    assert config_of("dpo", ModelConfig(), reference_free=True).has_dropout
    assert config_of("reward", ModelConfig(value_head=True)).has_dropout


def test_which_losses_have_a_reference():
    assert config_of("dpo").has_reference
    assert not config_of("dpo", reference_free=True).has_reference
    assert not config_of("reward", ModelConfig(value_head=True)).has_reference
    assert not Config().has_reference
