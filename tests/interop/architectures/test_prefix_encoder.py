"""Names and layouts of published prefixes."""

import dataclasses

import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.interop.architectures.chatglm_6b import feature_order
from glm_jax.interop.architectures.prefix_encoder import encoder_rows, table_row

MODEL = ModelConfig(
    num_layers=3, embed_dim=32, num_heads=4, num_kv_heads=2, position_encoding="rotary"
)
PLAIN = dataclasses.replace(MODEL, prefix_length=5)
PROJECTED = dataclasses.replace(PLAIN, prefix_projection=7)
HALVES = feature_order(8)


def test_a_row_of_the_table_is_the_key_and_the_value_of_each_layer():
    row = table_row("prompt_embeddings", PLAIN, range(8))
    assert (row.key, row.shape) == ("prompt_embeddings", (5, 3 * 2 * 2 * 8))
    tensor = np.arange(5 * 96).reshape(5, 96)
    (table,) = row.split(tensor)
    assert table.shape == (3, 2, 5, 2, 8)
    # Layer 2, value, place 4, head 1, feature 6.
    assert table[2, 1, 4, 1, 6] == 4 * 96 + (2 * 2 + 1) * 16 + 1 * 8 + 6
    np.testing.assert_array_equal(row.join(table), tensor)


@pytest.mark.parametrize("config", [PLAIN, PROJECTED])
@pytest.mark.parametrize("order", [range(8), HALVES])
def test_what_is_split_is_joined_again(config, order):
    rng = np.random.default_rng(0)
    for row in encoder_rows(config, order):
        tensor = rng.normal(size=row.shape)
        np.testing.assert_array_equal(row.join(*row.split(tensor)), tensor)


def test_names_and_shapes_of_both_encoders():
    shapes = {row.key: row.shape for row in encoder_rows(PROJECTED, range(8))}
    key = "transformer.prefix_encoder."
    assert shapes == {
        f"{key}embedding.weight": (5, 96),
        f"{key}trans.0.weight": (7, 96),
        f"{key}trans.0.bias": (7,),
        f"{key}trans.2.weight": (96, 7),
        f"{key}trans.2.bias": (96,),
    }
    assert {row.key for row in encoder_rows(PLAIN, range(8), "x.")} == {"x.embedding.weight"}
    assert encoder_rows(MODEL, range(8)) == []


def test_features_of_keys_alone_are_put_in_our_order():
    """In the plain table, in the rows of the last matrix and in its bias alike."""
    for config in (PLAIN, PROJECTED):
        plain, ours = (encoder_rows(config, order) for order in (range(8), HALVES))
        for one, other in zip(plain, ours, strict=True):
            tensor = np.random.default_rng(0).normal(size=one.shape)
            (theirs,), (moved,) = one.split(tensor), other.split(tensor)
            if one.paths[0].startswith(("prefix/table", "prefix/down")):
                pairs = {"prefix/table": 1, "prefix/down/kernel": 2, "prefix/down/bias": 1}
                axis = pairs[one.paths[0]]
                keys, values = np.split(theirs, 2, axis)
                theirs = np.concatenate([keys[..., HALVES], values], axis)
            np.testing.assert_array_equal(moved, theirs)
