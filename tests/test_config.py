"""Tests of glm_jax.config."""

import dataclasses
import json

import pytest

from glm_jax import config as config_lib
from glm_jax.config import Config, ModelConfig, ObjectiveConfig
from glm_jax.config_files import apply_overrides


def test_derived_sizes_follow_their_sources():
    model = ModelConfig(embed_dim=96, num_heads=6).resolved()
    assert (model.head_dim, model.mlp_dim) == (16, 384)
    wider = dataclasses.replace(ModelConfig(embed_dim=96, num_heads=6), embed_dim=192).resolved()
    assert (wider.head_dim, wider.mlp_dim) == (32, 768)


def test_json_round_trip():
    config = apply_overrides(Config(), ["model.num_layers=5", "optimizer.decay_steps=7"])
    assert config_lib.from_dict(json.loads(config_lib.to_json(config))) == config


def test_from_dict_names_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"\['model.depth'\]"):
        config_lib.from_dict({"model": {"depth": 3}})
    with pytest.raises(ValueError, match=r"unknown config sections \['modl'\]"):
        config_lib.from_dict({"modl": {}})


def test_differences_are_dotted():
    old = Config()
    new = apply_overrides(old, ["model.num_layers=5", "train.seed=3"])
    assert config_lib.differences(old, new) == {"model.num_layers": (12, 5), "train.seed": (0, 3)}
    assert config_lib.differences(old, old) == {}


def test_the_default_objective_is_the_articles():
    """GLM, section 2.1: 15 % of the tokens, Poisson(3), documents 50 to 100 %."""
    objective = ObjectiveConfig()
    assert (objective.mask_ratio, objective.mean_span_length) == (0.15, 3.0)
    assert (objective.document_min_ratio, objective.document_max_ratio) == (0.5, 1.0)
