"""Tables and values of the scheme of transformers; that transformers itself agrees is seen in
tests/interop/test_transformers.py."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.native import GLM4, GLM4_0414

GOLDEN = Path(__file__).parents[2] / "golden" / "chatglm"
VALUES = json.loads((GOLDEN / "glm4_9b" / "config.json").read_text())
CONFIG = GLM4.read_config(VALUES)
# As transformers 4 wrote it: flat, and without what was a default.
FLAT = {key: value for key, value in VALUES.items() if key != "rope_parameters"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def test_the_published_keys_are_read():
    expected = ModelConfig(
        vocab_size=320,
        num_layers=2,
        embed_dim=64,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        mlp_dim=112,
        activation="swiglu",
        norm="rms_norm",
        norm_epsilon=1.5625e-7,
        biases="qkv",
        tied_embeddings=False,
        max_positions=512,
        position_encoding="rotary",
        rotary_base=5e6,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
    )
    assert expected == CONFIG
    assert GLM4_0414.read_config(VALUES) == dataclasses.replace(expected, residual="sandwich")


def test_the_config_goes_there_and_back():
    written = GLM4.write_config(CONFIG)
    assert GLM4.read_config(written) == CONFIG
    assert written["rope_parameters"] == VALUES["rope_parameters"]
    known = {key: value for key, value in VALUES.items() if key in written}
    assert written.items() >= known.items()
    assert len(known) == 15
    changes = {"dropout_rate": 0.1, "tied_embeddings": True, "biases": "none", "head_dim": 8}
    other = dataclasses.replace(CONFIG, **changes)
    assert GLM4.read_config(GLM4.write_config(other)) == other


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {}),
        ({"rope_theta": 2e4}, {"rotary_base": 2e4}),
        ({"partial_rotary_factor": 1.0}, {"rotary_fraction": 1.0}),
        ({"rope_parameters": None, "rope_theta": 2e4}, {"rotary_base": 2e4}),
        # What is inside goes before what is flat.
        ({"rope_theta": 2e4, "rope_parameters": {"rope_theta": 3e4}}, {"rotary_base": 3e4}),
        (
            {"rope_scaling": {"type": "linear", "factor": 8}},
            {"rotary_scaling": "linear", "rotary_factor": 8.0},
        ),
        (
            {"rope_theta": 2e4, "rope_scaling": YARN},
            {
                "rotary_base": 2e4,
                "rotary_scaling": "yarn",
                "rotary_factor": 4.0,
                "rotary_original_positions": 128,
            },
        ),
        # As in transformers: the factor is the ratio of both lengths, the original one the whole.
        (
            {"rope_parameters": {**YARN, "factor": None}},
            {
                "rotary_scaling": "yarn",
                "rotary_factor": 4.0,
                "rotary_original_positions": 128,
            },
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            {
                "rotary_scaling": "yarn",
                "rotary_factor": 2.0,
                "rotary_original_positions": 512,
            },
        ),
    ],
)
def test_rotary_settings_flat_and_nested(values, changes):
    config = GLM4.read_config({**FLAT, **values})
    plain = dataclasses.replace(CONFIG, rotary_base=10000.0)
    assert config == dataclasses.replace(plain, **changes)
    assert GLM4.read_config(GLM4.write_config(config)) == config


def test_a_ratio_becomes_a_base():
    ratio = {"rotary_base": 10000.0, "rotary_scaling": "base", "rotary_factor": 500.0}
    written = GLM4.write_config(dataclasses.replace(CONFIG, **ratio))
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 5e6
    assert GLM4.read_config(written) == CONFIG


def test_both_forms_of_yarn_are_written():
    written = GLM4.write_config(GLM4.read_config({**FLAT, "rope_scaling": YARN}))
    assert written["rope_scaling"] == YARN
    flat = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    assert written["rope_parameters"] == {**YARN, **flat}
    assert written.items() >= flat.items()
    # Where the original length is derived, it is written out.
    derived = dataclasses.replace(CONFIG, rotary_scaling="yarn", rotary_factor=4.0)
    rope = GLM4.write_config(derived)["rope_parameters"]
    assert rope["original_max_position_embeddings"] == 128


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (
            {"rope_type": "dynamic", "factor": 2.0},
            "rope_type='dynamic' .* 'default', 'linear', 'yarn'",
        ),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "rope_type='longrope'"),
        ({**YARN, "beta_fast": 16}, "beta_fast=16 .* may be 32"),
        ({**YARN, "beta_slow": 2}, "beta_slow=2 .* may be 1"),
        ({**YARN, "truncate": False}, "truncate=False .* may be True"),
        ({**YARN, "mscale": 1.0}, "mscale of rope_type='yarn'"),
        ({**YARN, "attention_factor": 1.0}, "attention_factor=1.0 .* = 1.138"),
        ({"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1}, "low_freq_factor"),
        ({"full_attention": {"rope_type": "default"}}, "one flat object"),
        ([1.0], "one flat object"),
        ({"rope_type": ["yarn"]}, r"rope_type=\['yarn'\] in config.json is not supported"),
        ({"rope_type": 3}, "rope_type=3 in config.json is not supported"),
        ({**YARN, "original_max_position_embeddings": 0}, "original_max_.* must be between 1 and"),
        ({**YARN, "factor": float("inf")}, "factor in config.json must be a finite number"),
        ({"rope_theta": float("nan")}, "rope_theta in config.json must be a finite number"),
    ],
)
def test_rotary_settings_that_are_not_supported_are_named(rope, message):
    with pytest.raises(UserError, match=message):
        GLM4.read_config({**FLAT, "rope_parameters": rope})


def test_options_of_yarn_that_are_its_defaults_are_allowed():
    expected = GLM4.read_config({**FLAT, "rope_parameters": YARN})
    attention = 0.1 * math.log(4.0) + 1.0
    said = {**YARN, "beta_fast": 32.0, "beta_slow": 1, "attention_factor": attention}
    assert GLM4.read_config({**FLAT, "rope_parameters": {**said, "mscale": None}}) == expected


def test_other_activations_are_refused():
    with pytest.raises(UserError, match=r"hidden_act='gelu' in config.json is not supported"):
        GLM4.read_config({**VALUES, "hidden_act": "gelu"})


@pytest.mark.parametrize("architecture", [GLM4, GLM4_0414], ids=["glm", "glm4"])
@pytest.mark.parametrize(
    "change",
    [
        {"norm": "layer_norm"},
        {"activation": "gelu"},
        {"biases": "all"},
        {"position_encoding": "learned_block"},
    ],
)
def test_what_the_format_cannot_say_is_refused(architecture, change):
    (name,) = change
    config = architecture.read_config(VALUES)
    with pytest.raises(UserError, match=f"model.{name}="):
        architecture.write_config(dataclasses.replace(config, **change))


def test_the_two_formats_have_each_their_residual():
    with pytest.raises(UserError, match=r"GLM-4-9B .*model.residual='pre_norm'"):
        GLM4.write_config(GLM4_0414.read_config(VALUES))
    with pytest.raises(UserError, match=r"GLM-4-0414 .*model.residual='sandwich'"):
        GLM4_0414.write_config(CONFIG)


def test_split_and_join_are_inverse_for_every_row():
    rng = np.random.default_rng(0)
    for row in GLM4_0414.rows(GLM4_0414.read_config(VALUES)):
        tensor = rng.normal(size=row.shape)
        np.testing.assert_array_equal(row.join(*row.split(tensor)), tensor, err_msg=row.key)


def test_four_norms_a_layer_and_what_they_are():
    config = GLM4_0414.read_config(VALUES)
    paths = {row.key: row.paths for row in GLM4_0414.rows(config) if "layers.1." in row.key}
    norms = {key[len("model.layers.1.") :]: path for key, path in paths.items() if "norm" in key}
    assert norms == {
        "input_layernorm.weight": ("layers/1/attention_norm/scale",),
        "post_self_attn_layernorm.weight": ("layers/1/attention_out_norm/scale",),
        "post_attention_layernorm.weight": ("layers/1/mlp_norm/scale",),
        "post_mlp_layernorm.weight": ("layers/1/mlp_out_norm/scale",),
    }
    assert len(paths) == 4 + 6 + 1 + 2
    without = GLM4_0414.rows(dataclasses.replace(config, biases="none"))
    assert not any(row.key.endswith(".bias") for row in without)


def test_other_families_with_the_same_keys_are_not_taken_for_it():
    llama = {**FLAT, "model_type": "llama", "rope_parameters": {"rope_theta": 1e4}}
    assert not GLM4.knows(llama)
    # The type alone decides neither way.
    assert GLM4.knows({key: value for key, value in FLAT.items() if key != "model_type"})
    assert GLM4.knows({**VALUES, "model_type": "something"})
    assert not GLM4.knows({"model_type": "glm", "hidden_size": 64})
