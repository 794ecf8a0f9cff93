"""Tests of glm_jax.config."""

import dataclasses
import json
import math

import pytest

from glm_jax import config as config_lib
from glm_jax.config import ComputeConfig, Config, ModelConfig, ObjectiveConfig
from glm_jax.config.files import apply_overrides
from glm_jax.errors import UserError


def test_derived_sizes_follow_their_sources():
    model = ModelConfig(embed_dim=96, num_heads=6).resolved()
    assert (model.head_dim, model.mlp_dim) == (16, 384)
    wider = dataclasses.replace(ModelConfig(embed_dim=96, num_heads=6), embed_dim=192).resolved()
    assert (wider.head_dim, wider.mlp_dim) == (32, 768)


def test_what_computes_is_given_both_sections():
    model, compute = ModelConfig(embed_dim=96, num_heads=6), ComputeConfig(dtype="bfloat16")
    resolved = Config(model=model, compute=compute).resolved_model
    assert resolved == model.resolved(compute)
    # A config says once how its model runs.
    again = Config(model=resolved, compute=ComputeConfig(remat="full"))
    assert type(again.model) is ModelConfig
    assert (again.model, again.compute) == (model.with_sizes(), ComputeConfig(remat="full"))
    assert config_lib.from_dict(json.loads(config_lib.to_json(again))) == again


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


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"num_layers": True}, "model.num_layers must be a whole number; got True"),
        ({"num_layers": 2.0}, "model.num_layers must be a whole number; got 2.0"),
        ({"num_layers": "2"}, "model.num_layers must be a whole number; got '2'"),
        ({"num_layers": None}, "model.num_layers must be a whole number; got None"),
        ({"num_kv_heads": [2]}, r"model.num_kv_heads must be a whole number; got \[2\]"),
        ({"norm_epsilon": True}, "model.norm_epsilon must be a finite number; got True"),
        ({"norm_epsilon": math.nan}, "model.norm_epsilon must be a finite number; got nan"),
        ({"tied_embeddings": 1}, "model.tied_embeddings must be True or False; got 1"),
        ({"activation": 3}, "model.activation must be a string; got 3"),
        (["num_layers"], r"model must be an object; got \['num_layers'\]"),
        (3, "model must be an object; got 3"),
    ],
)
def test_values_of_other_types_are_named(section, said):
    with pytest.raises(UserError, match=said):
        config_lib.from_dict({"model": section})


def test_whole_floats_and_mixtures_are_read():
    read = config_lib.from_dict({"model": {"norm_epsilon": 0}, "data": {"mixture": None}})
    assert read.model.norm_epsilon == 0
    mixture = [["a", "a/*.txt", 1.0]]
    assert config_lib.from_dict({"data": {"mixture": mixture}}).data.mixture == (tuple(mixture[0]),)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("num_layers", 1000),
        ("vocab_size", 2**31 - 1),
        ("max_positions", 2**31 - 1),
        ("embed_dim", 2**24),
        ("mlp_dim", 2**24),
        ("head_dim", 2**24),
    ],
)
def test_sizes_have_an_end(name, most):
    ModelConfig(**{name: most, "num_heads": 1})
    with pytest.raises(UserError, match=f"model.{name} must be at most {most}; got {most + 1}"):
        ModelConfig(**{name: most + 1, "num_heads": 1})


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0])
def test_numbers_of_a_model_are_finite(odd):
    for name in ("norm_epsilon", "initializer_range", "rotary_base", "rotary_factor"):
        with pytest.raises(
            UserError, match=f"model.{name} must be (a finite number|at least [01]|above 0)"
        ):
            ModelConfig(**{name: odd})
