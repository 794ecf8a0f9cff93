"""Tests of glm_jax.models.local_attention."""

import dataclasses

import jax
import numpy as np
import pytest

from glm_jax.config import Config, MeshConfig, ModelConfig, TrainConfig
from glm_jax.errors import UserError
from glm_jax.models.layers import layer_norm
from glm_jax.models.local_attention import offsets, rotation, with_local_attention
from glm_jax.models.params import create_params, stack_layers, to_paths, unstack_layers
from glm_jax.sharding import make_mesh
from glm_jax.training.state import create_state

CONFIG = ModelConfig(
    vocab_size=50,
    num_layers=2,
    embed_dim=128,
    num_heads=4,
    max_positions=64,
    initializer_range=0.05,
    dropout_rate=0.0,
    scan_layers=False,
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def drawn(mesh):
    return create_params(CONFIG, mesh, seed=0)


def scores(params, config):
    """Scores of the first layer [N, query, key]: start tokens of spans over 60 drawn tokens."""
    keys = np.random.default_rng(0).integers(1, config.vocab_size, 60)
    attention = params["layers"]["0"]["attention"]
    query = np.einsum(
        "td,dnh->nth", inputs(params, np.zeros_like(keys), 1), attention["query"]["kernel"]
    )
    key = np.einsum("td,dkh->kth", inputs(params, keys, 0), attention["key"]["kernel"])
    key = np.repeat(key, len(query) // len(key), axis=0)
    return np.einsum("nth,nsh->nts", query, key) / np.sqrt(query.shape[-1])


def inputs(params, tokens, block_position):
    """What the first layer sees of tokens at 0, 1, ..., behind its norm [T, D]."""
    tables = params["positions"]
    x = params["embedding"]["table"][tokens] + tables["table"][: len(tokens)]
    x = x + tables["block_table"][block_position]
    width = x.shape[-1]
    return layer_norm(x, np.ones(width), np.zeros(width), 1e-5)


def by_offset(scores, offset):
    """The mean score of keys that stand `offset` tokens from their query, by head."""
    return np.diagonal(scores, offset, axis1=1, axis2=2).mean(1)


def test_offsets_alternate():
    assert offsets(5) == [-1, 1, -2, 2, -3]


def test_a_rotation_moves_a_row_of_sinusoids(drawn):
    table = np.asarray(with_local_attention(drawn, CONFIG)["positions"]["table"], np.float64)
    frequencies = 30.0 ** (-np.arange(64) / 64)
    np.testing.assert_allclose(table[:-3] @ rotation(frequencies, 3), table[3:], atol=1e-6)
    # Of the size that was asked for: twice the drawn weights' standard deviation.
    assert np.sqrt((table**2).mean()) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_each_head_looks_at_its_own_neighbour(mesh, kv_heads):
    config = dataclasses.replace(CONFIG, num_kv_heads=kv_heads)
    before = create_params(config, mesh, seed=0)
    found = scores(with_local_attention(before, config), config)
    reach = range(-12, 13)
    profile = np.stack([by_offset(found, offset) for offset in reach])
    assert [reach[index] for index in profile.argmax(0)] == offsets(4)
    # As high as _PEAK where a head looks, and little left eleven tokens further; drawn: nothing.
    assert profile.max(0) == pytest.approx(np.full(4, 5.0), abs=1.0)
    assert (profile.max(0) - profile[0 if kv_heads else -1] > 2.0).all()
    assert np.abs(scores(before, config)).max() < 2.5


def test_all_else_is_as_drawn(drawn):
    before, after = to_paths(drawn), to_paths(with_local_attention(drawn, CONFIG))
    changed = {path for path, leaf in before.items() if not np.array_equal(leaf, after[path])}
    assert changed == {
        "positions/table",
        "layers/0/attention/query/kernel",
        "layers/0/attention/key/kernel",
    }
    assert {path: leaf.shape for path, leaf in before.items()} == {
        path: leaf.shape for path, leaf in after.items()
    }


def test_stacked_layers_begin_alike(drawn):
    listed = with_local_attention(drawn, CONFIG)
    stacked = with_local_attention(stack_layers(drawn), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), listed)


def test_a_run_begins_so(mesh, drawn):
    config = Config(model=CONFIG, train=TrainConfig(local_start=True))
    found = create_state(config, mesh).params
    expected = with_local_attention(drawn, CONFIG)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        ({"position_encoding": "rotary", "biases": "qkv"}, {}, "'rotary' has none"),
        ({}, {"init_from": "a"}, "those of train.init_from='a' are not"),
        ({"embed_dim": 129, "num_heads": 3}, {}, "even model.embed_dim; got 129"),
    ],
)
def test_what_rules_it_out(model, train, said):
    with pytest.raises(UserError, match=said):
        Config(
            model=dataclasses.replace(CONFIG, **model),
            train=TrainConfig(local_start=True, **train),
        )
