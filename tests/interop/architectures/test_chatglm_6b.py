"""That names and values are those of the published code is seen in test_golden_chatglm_6b.py."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glm_jax
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.chatglm_6b import CHATGLM_6B, feature_order
from glm_jax.interop.key_tables import candidates, for_saving
from glm_jax.models import variants

GOLDEN = Path(__file__).parents[2] / "golden" / "chatglm" / "chatglm1"
CONFIG = ModelConfig(
    vocab_size=48,
    num_layers=2,
    embed_dim=24,
    num_heads=3,
    mlp_dim=40,
    max_positions=8,
    residual="scaled_norm",
    position_encoding="rotary_block",
    rotary_fraction=1.0,
    rotary_dtype="float16",
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
)
# The config.json of THUDM/chatglm-6b.
PUBLISHED = {
    "architectures": ["ChatGLMModel"],
    "model_type": "chatglm",
    "bos_token_id": 130004,
    "eos_token_id": 130005,
    "mask_token_id": 130000,
    "gmask_token_id": 130001,
    "pad_token_id": 3,
    "hidden_size": 4096,
    "inner_hidden_size": 16384,
    "layernorm_epsilon": 1e-05,
    "max_sequence_length": 2048,
    "num_attention_heads": 32,
    "num_layers": 28,
    "position_encoding_2d": True,
    "vocab_size": 130528,
}


def test_the_published_config_is_the_variant():
    assert candidates(PUBLISHED, "config.json") == [CHATGLM_6B]
    assert CHATGLM_6B.read_config(PUBLISHED).with_sizes() == variants.CHATGLM_6B.with_sizes()
    assert CHATGLM_6B.blanks(PUBLISHED) == ((130000, 130001), 130004)


def test_early_files_have_image_ids_in_front_and_name_sop_alone():
    early = {**PUBLISHED, "vocab_size": 150528, "bos_token_id": 150004, "eos_token_id": 150005}
    del early["mask_token_id"], early["gmask_token_id"]
    assert CHATGLM_6B.blanks(early) == ((150000, 150001), 150004)
    assert CHATGLM_6B.blanks({}) is None


def test_split_and_join_are_inverse_for_every_row():
    rng = np.random.default_rng(0)
    for row in CHATGLM_6B.rows(CONFIG):
        tensor = rng.normal(size=row.shape)
        parts = row.split(tensor)
        assert len(parts) == len(row.paths)
        np.testing.assert_array_equal(row.join(*parts), tensor, err_msg=row.key)


def test_features_of_a_half_that_rotate_together_are_neighbours():
    assert feature_order(16) == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_heads_lie_one_after_the_other_each_with_query_key_and_value():
    key = "transformer.layers.1.attention.query_key_value"
    weight, bias = (
        next(r for r in CHATGLM_6B.rows(CONFIG) if r.key == f"{key}.{x}")
        for x in ("weight", "bias")
    )
    # Third head, key, sixth feature of theirs: ours is number 6, of the second half 4 6 5 7.
    number = 2 * 3 * 8 + 8 + 6
    tensor = np.zeros((72, 24))
    tensor[number, 7] = 1.0
    query, found, value = weight.split(tensor)
    assert weight.paths[1] == "layers/1/attention/key/kernel"
    assert found.shape == (24, 3, 8)
    assert found[7, 2, 5] == 1.0
    assert not query.any()
    assert not value.any()
    assert [part.shape for part in bias.split(tensor[:, 7])] == [(3, 8)] * 3
    assert bias.split(tensor[:, 7])[1][2, 5] == 1.0
    # Values keep their order.
    tensor[2 * 3 * 8 + 16 + 6, 7] = 1.0
    assert weight.split(tensor)[2][7, 2, 6] == 1.0


def test_the_config_goes_there_and_back():
    for changes in ({}, {"residual_alpha_layers": 28}, {"rotary_dtype": "float32"}):
        config = dataclasses.replace(CONFIG, **changes)
        assert CHATGLM_6B.read_config(CHATGLM_6B.write_config(config)) == config
    assert for_saving(CONFIG, None, "as_loaded") is CHATGLM_6B


@pytest.mark.parametrize(
    "change",
    [
        {"residual": "pre_norm"},
        {"position_encoding": "rotary"},
        {"rotary_fraction": 0.5},
        {"rotary_base": 5e6},
        {"norm": "rms_norm"},
        {"biases": "qkv"},
        {"num_kv_heads": 1},
        {"head_dim": 16},
        {"activation": "swiglu"},
    ],
)
def test_what_the_format_cannot_say_is_refused(change):
    (name,) = change
    with pytest.raises(UserError, match=f"model.{name}"):
        CHATGLM_6B.write_config(dataclasses.replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("key", "value"),
    [("position_encoding_2d", False), ("rotary_dtype", "float64")],
)
def test_what_is_not_read_is_refused(key, value):
    with pytest.raises(UserError, match=f"{key}={value!r} in config.json is not supported"):
        CHATGLM_6B.read_config({**PUBLISHED, key: value})


@pytest.mark.parametrize("head", ["equal", "missing", "other"])
def test_an_lm_head_that_is_equal_or_missing_is_tied(tmp_path, head):
    """HF ties it by default; the published files hold it all the same, and inv_freq too."""
    tensors = load_file(GOLDEN / "model.safetensors")
    if head != "other":
        tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].copy()
    if head == "missing":
        del tensors["lm_head.weight"]
    tensors["transformer.layers.0.attention.rotary_emb.inv_freq"] = np.ones(4, np.float16)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(GOLDEN / "config.json", tmp_path)
    lm = glm_jax.load(tmp_path)
    assert lm.config.tied_embeddings == (head != "other")
    assert ("output" in lm.params) == (head == "other")
    lm.save(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    expected = load_file(GOLDEN / "model.safetensors") if head == "other" else tensors
    assert ("lm_head.weight" in again) or head == "missing"
    for key, tensor in again.items():
        if key != "lm_head.weight" or head != "missing":
            np.testing.assert_array_equal(tensor, expected[key], err_msg=key)
    values = json.loads((tmp_path / "again" / "config.json").read_text())
    assert values["gmask_token_id"] == 301
    assert glm_jax.load(tmp_path / "again").config == lm.config
