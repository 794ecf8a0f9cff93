"""Tests of glm_jax.models.local_attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import Config, MeshConfig, ModelConfig, TrainConfig
from glm_jax.errors import UserError
from glm_jax.models.layers import layer_norm
from glm_jax.models.local_attention import (
    _frequencies,
    _pairs,
    offsets,
    rotation,
    with_local_attention,
)
from glm_jax.models.params import create_params
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import create_state

MODEL = ModelConfig(
    vocab_size=50,
    num_layers=2,
    embed_dim=128,
    num_heads=4,
    max_positions=64,
    initializer_range=0.05,
    dropout_rate=0.0,
)
CONFIG = MODEL.resolved()


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def drawn(mesh):
    return create_params(CONFIG, mesh, seed=0)


def scores(params, config):
    """Scores of the first layer [N, query, key]: start tokens of spans over 60 drawn tokens."""
    keys = np.random.default_rng(0).integers(1, config.vocab_size, 60)
    attention = jax.tree.map(lambda leaf: leaf[0], params["layers"]["attention"])
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
    return layer_norm(x, jnp.ones(width), jnp.zeros(width), 1e-5)


def by_offset(scores, offset):
    """The mean score of keys that stand `offset` tokens from their query, by head."""
    return np.diagonal(scores, offset, axis1=1, axis2=2).mean(1)


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_offsets_alternate():
    assert offsets(5) == [-1, 1, -2, 2, -3]


@pytest.mark.parametrize(("width", "heads"), [(128, 4), (192, 6), (64, 2), (64, 1), (96, 12)])
def test_a_rotation_moves_a_row_of_sinusoids(mesh, width, heads):
    config = dataclasses.replace(MODEL, embed_dim=width, num_heads=heads, num_layers=1).resolved()
    params = with_local_attention(create_params(config, mesh, seed=0), config)
    table = np.asarray(params["positions"]["table"], np.float64)
    # Evenly spaced below pi, from a quarter of a head's spacing, which is D / H of these.
    first = width // (width // heads) / 4 % 1
    frequencies = (np.arange(width // 2) + first) * 2 * np.pi / width
    np.testing.assert_allclose(table[:-3] @ rotation(frequencies, 3), table[3:], atol=1e-6)
    # Of the size that was asked for: twice the drawn weights' standard deviation.
    np.testing.assert_allclose((table**2).sum(1), width * 0.1**2, rtol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_each_head_looks_at_its_own_neighbour_and_at_no_other(mesh, kv_heads):
    config = dataclasses.replace(MODEL, num_kv_heads=kv_heads).resolved()
    before = create_params(config, mesh, seed=0)
    found = scores(with_local_attention(before, config), config)
    reach = range(-12, 13)
    profile = np.stack([by_offset(found, offset) for offset in reach])
    assert [reach[index] for index in profile.argmax(0)] == offsets(4)
    # As high as _PEAK where a head looks, and nothing, tokens aside, beside it.
    assert profile.max(0) == pytest.approx(np.full(4, 12.0), abs=1.5)
    assert np.abs(np.sort(profile, axis=0)[:-1]).max() < 1.5
    for head, offset in enumerate(offsets(4)):
        weights = np.diagonal(softmax(found[head]), offset)
        assert weights.mean() > 0.9
    assert np.abs(scores(before, config)).max() < 2.5


def test_a_head_takes_no_far_token_for_its_neighbour():
    """Frequencies a quarter of their spacing above 0 repeat after 4 H, here 128."""
    distances = np.arange(128)
    frequencies = _frequencies(CONFIG)[_pairs(CONFIG)]
    assert len(frequencies) == 16
    likeness = np.cos(distances[:, None] * frequencies).mean(1)
    assert likeness[0] == 1.0
    # On the way a quarter of a turn is left over, the mean of a sine: 2 / pi, and beside it less.
    high = distances[1:][likeness[1:] > 0.25]
    assert high.tolist() == [31, 97]
    assert likeness[[31, 97]] == pytest.approx([2 / np.pi] * 2, rel=1e-3)


def test_all_else_is_as_drawn(drawn):
    before, after = to_paths(drawn), to_paths(with_local_attention(drawn, CONFIG))
    changed = {path for path, leaf in before.items() if not np.array_equal(leaf, after[path])}
    of_layers = {"layers/attention/query/kernel", "layers/attention/key/kernel"}
    assert changed == {"positions/table", *of_layers}
    for path in of_layers:  # the first layer's alone
        np.testing.assert_array_equal(before[path][1:], after[path][1:])
    assert {path: leaf.shape for path, leaf in before.items()} == {
        path: leaf.shape for path, leaf in after.items()
    }


def test_a_run_begins_so(mesh, drawn):
    config = Config(model=MODEL, train=TrainConfig(local_start=True))
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
            model=dataclasses.replace(MODEL, **model),
            train=TrainConfig(local_start=True, **train),
        )
