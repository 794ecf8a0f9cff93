"""That names and values are those of the published files is seen in tests/models/test_golden.py."""

import dataclasses

import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.interop.architectures.glm import GLM

CONFIG = ModelConfig(
    vocab_size=48, num_layers=2, embed_dim=24, num_heads=3, max_positions=8, dropout_rate=0.2
)


def test_split_and_join_are_inverse_for_every_row():
    rng = np.random.default_rng(0)
    for row in GLM.rows(CONFIG):
        tensor = rng.normal(size=row.shape)
        parts = row.split(tensor)
        assert len(parts) == len(row.paths)
        np.testing.assert_array_equal(row.join(*parts), tensor, err_msg=row.key)


def test_query_key_value_are_cut_into_heads_in_order():
    row = next(
        r for r in GLM.rows(CONFIG) if r.key.endswith("layers.1.attention.query_key_value.weight")
    )
    tensor = np.zeros((72, 24))
    tensor[24 + 8 * 2 + 5, 7] = 1.0  # keys, third head, sixth entry; from input 7
    query, key, value = row.split(tensor)
    assert row.paths[1] == "layers/1/attention/key/kernel"
    assert key.shape == (24, 3, 8)
    assert key[7, 2, 5] == 1.0
    assert not query.any()
    assert not value.any()


def test_the_config_goes_there_and_back():
    assert GLM.read_config(GLM.write_config(CONFIG)) == CONFIG
    gpt = dataclasses.replace(CONFIG, position_encoding="learned")
    assert GLM.read_config(GLM.write_config(gpt)) == gpt


@pytest.mark.parametrize(
    "change",
    [
        {"head_dim": 16},
        {"mlp_dim": 32},
        {"norm_epsilon": 1e-6},
        {"norm": "rms_norm"},
        {"num_kv_heads": 1},
        {"activation": "swiglu"},
        {"tied_embeddings": False},
        {"position_encoding": "rotary"},
    ],
)
def test_what_the_format_cannot_say_is_refused(change):
    (name,) = change
    with pytest.raises(UserError, match=f"model.{name}="):
        GLM.write_config(dataclasses.replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output_dropout_prob": "x"}, "output_dropout_prob in config.json must be a number"),
        ({"attention_dropout_prob": True}, "attention_dropout_prob .* must be a number; got True"),
        ({"initializer_range": float("nan")}, "initializer_range .* must be a finite number"),
        ({"block_position_encoding": "no"}, "block_position_encoding .* must be true or false"),
        ({"relative_encoding": 1}, "relative_encoding .* must be true or false; got 1"),
        ({"relative_encoding": True}, "relative_encoding=true .* is not supported"),
        ({"num_layers": True}, "num_layers in config.json must be a whole number; got True"),
    ],
)
def test_values_of_other_kinds_are_named(change, said):
    values = GLM.write_config(ModelConfig(vocab_size=48, num_layers=1, embed_dim=24, num_heads=3))
    assert GLM.read_config(values).vocab_size == 48
    with pytest.raises(UserError, match=said):
        GLM.read_config({**values, **change})
