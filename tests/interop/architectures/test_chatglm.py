"""Tables and values of the original scheme; that they give the reference's numbers is seen in
tests/interop/test_huggingface.py and tests/models."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.chatglm import CHATGLM

GOLDEN = Path(__file__).parents[2] / "golden" / "chatglm"
VALUES = json.loads((GOLDEN / "chatglm2" / "config.json").read_text())
CONFIG = CHATGLM.read_config(VALUES)


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
        norm_epsilon=1e-5,
        biases="qkv",
        tied_embeddings=False,
        max_positions=512,
        position_encoding="rotary",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
    )
    assert expected == CONFIG


def test_the_config_goes_there_and_back():
    written = CHATGLM.write_config(CONFIG)
    assert CHATGLM.read_config(written) == CONFIG
    known = {key: value for key, value in VALUES.items() if key in written}
    assert written.items() >= known.items()
    assert len(known) == 16
    changes = {"dropout_rate": 0.1, "initializer_range": 0.01, "tied_embeddings": True}
    other = dataclasses.replace(CONFIG, num_kv_heads=4, biases="none", **changes)
    assert CHATGLM.read_config(CHATGLM.write_config(other)) == other


@pytest.mark.parametrize(
    ("values", "scaling", "factor"),
    [
        ({}, "none", 1.0),
        ({"rope_ratio": 1}, "none", 1.0),
        ({"rope_ratio": None, "_name_or_path": "THUDM/chatglm2-6b"}, "none", 1.0),
        ({"rope_ratio": 50}, "base", 50.0),
        ({"rope_ratio": 16, "_name_or_path": "THUDM/chatglm2-6b-32k"}, "linear", 16.0),
        ({"rope_ratio": 50, "_name_or_path": "THUDM/chatglm3-6b-32k"}, "base", 50.0),
        ({"rope_ratio": 16, "_name_or_path": "x/ChatGLM2", "rope_mode": "base"}, "base", 16.0),
        ({"rope_ratio": 4, "rope_mode": "linear"}, "linear", 4.0),
    ],
)
def test_rope_ratio_and_what_it_means(values, scaling, factor):
    config = CHATGLM.read_config({**VALUES, **values})
    assert (config.rotary_scaling, config.rotary_factor) == (scaling, factor)
    assert config.rotary_base == 10000.0
    # What is written says it without a name.
    assert CHATGLM.read_config(CHATGLM.write_config(config)) == config


@pytest.mark.parametrize(
    ("values", "doubted"),
    [
        ({}, False),
        ({"rope_ratio": 1, "_name_or_path": "/data/mine"}, False),
        ({"rope_ratio": 16}, True),
        ({"rope_ratio": 16, "_name_or_path": "/data/mine"}, True),
        ({"rope_ratio": 16, "_name_or_path": ["odd"]}, True),
        ({"rope_ratio": 16, "_name_or_path": "THUDM/chatglm2-6b-32k"}, False),
        ({"rope_ratio": 50, "_name_or_path": "THUDM/ChatGLM3-6b-32k"}, False),
        ({"rope_ratio": 500, "_name_or_path": "THUDM/glm-4-9b-chat"}, False),
        ({"rope_ratio": 500, "_name_or_path": "/data/mine", "padded_vocab_size": 151552}, False),
        ({"rope_ratio": 16, "rope_mode": "linear"}, False),
        ({"rope_ratio": 16, "rope_mode": "base"}, False),
        ({"rope_ratio": 16, "rope_mode": None}, True),
    ],
)
def test_a_guess_at_rope_ratio_is_said(values, doubted):
    doubt = CHATGLM.doubt({**VALUES, **values})
    assert (doubt is not None) == doubted
    assert doubt is None or 'add "rope_mode": "linear" to config.json' in doubt


def test_a_base_of_its_own_is_written_as_a_ratio():
    config = dataclasses.replace(CONFIG, rotary_base=5e6)
    written = CHATGLM.write_config(config)
    assert (written["rope_ratio"], written["rope_mode"]) == (500, "base")
    both = {"rotary_base": 5e6, "rotary_scaling": "linear", "rotary_factor": 4.0}
    with pytest.raises(UserError, match=r"model.rotary_base=10000.0 beside .*5000000.0"):
        CHATGLM.write_config(dataclasses.replace(CONFIG, **both))


def test_every_head_has_its_keys_without_groups():
    without = {**VALUES, "multi_query_attention": False}
    assert CHATGLM.read_config(without).num_kv_heads == 4
    # As in the published configuration class.
    del without["multi_query_attention"], without["multi_query_group_num"]
    assert CHATGLM.read_config(without).num_kv_heads == 4


def test_switches_that_no_released_model_uses():
    full = CHATGLM.read_config({**VALUES, "rmsnorm": False, "add_bias_linear": True})
    assert (full.norm, full.biases) == ("layer_norm", "all")
    keys = {row.key for row in CHATGLM.rows(full)} - {row.key for row in CHATGLM.rows(CONFIG)}
    assert len(keys) == 2 * 5 + 1
    layer = "transformer.encoder.layers.1."
    assert f"{layer}input_layernorm.bias" in keys
    assert f"{layer}mlp.dense_h_to_4h.bias" in keys
    assert f"{layer}self_attention.dense.bias" in keys
    assert CHATGLM.read_config(CHATGLM.write_config(full)) == full
    bare = CHATGLM.read_config({**VALUES, "add_qkv_bias": False})
    assert bare.biases == "none"


@pytest.mark.parametrize(
    "values",
    [
        {"post_layer_norm": False},
        {"apply_residual_connection_post_layernorm": True},
        {"original_rope": False},
        {"rope_mode": "ntk"},
    ],
)
def test_what_is_not_supported_is_named(values):
    ((key, value),) = values.items()
    with pytest.raises(UserError, match=f"{key}={value!r} in config.json is not supported"):
        CHATGLM.read_config({**VALUES, **values})


@pytest.mark.parametrize(
    "change",
    [
        {"residual": "sandwich"},
        {"activation": "gelu"},
        {"rotary_fraction": 1.0},
        {"rotary_scaling": "yarn"},
        {"position_encoding": "learned"},
    ],
)
def test_what_the_format_cannot_say_is_refused(change):
    (name,) = change
    with pytest.raises(UserError, match=f"model.{name}="):
        CHATGLM.write_config(dataclasses.replace(CONFIG, **change))


def test_split_and_join_are_inverse_for_every_row():
    rng = np.random.default_rng(0)
    for row in CHATGLM.rows(CONFIG):
        tensor = rng.normal(size=row.shape)
        np.testing.assert_array_equal(row.join(*row.split(tensor)), tensor, err_msg=row.key)


def test_the_gate_is_the_first_half_and_keys_follow_all_queries():
    rows = {row.key: row for row in CHATGLM.rows(CONFIG)}
    row = rows["transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"]
    assert row.paths == ("layers/1/mlp/gate/kernel", "layers/1/mlp/up/kernel")
    tensor = np.zeros(row.shape)
    tensor[:112] = 1.0
    gate, up = row.split(tensor)
    assert gate.all()
    assert not up.any()
    row = rows["transformer.encoder.layers.0.self_attention.query_key_value.weight"]
    assert row.shape == (4 * 16 + 2 * 2 * 16, 64)
    tensor = np.zeros(row.shape)
    tensor[64 + 16 + 3, 5] = 1.0  # after four heads of queries: keys, second group, fourth number
    query, key, value = row.split(tensor)
    assert key[5, 1, 3] == 1.0
    assert not query.any()
    assert not value.any()


def test_a_tied_output_matrix_repeats_the_word_table():
    last = CHATGLM.rows(dataclasses.replace(CONFIG, tied_embeddings=True))[-1]
    assert (last.key, last.paths) == ("transformer.output_layer.weight", ("embedding/table",))
    assert last.repeats
    assert not CHATGLM.rows(CONFIG)[-1].repeats
