import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.decoding import (
    begin,
    check_new_tokens,
    check_row,
    feed,
    fetch,
    fill_up,
    ids_seen,
    run,
    stack,
)
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(vocab_size=8, num_layers=1, embed_dim=8, num_heads=2, max_positions=16)


class Counter:
    """Stands for a model: the best id is the one fed plus its position, within 8."""

    def extend(self, tokens, positions, block_positions, attend_start, attend_end, caches):
        np.testing.assert_array_equal(attend_start.shape, tokens.shape)
        return jnp.stack([tokens + positions, attend_end], axis=-1), caches

    def logits(self, hidden):
        return jnp.float32(jnp.arange(8) == hidden[:, :1] % 8)


def count(tokens, length, running, limit, end_ids=(7,), **options):
    chooser = Chooser.create(Sampling(**options), row_keys(0, [], len(tokens)))
    seen = ids_seen([[token] for token in tokens], len(tokens), CONFIG) if options else None
    rows = begin([], jnp.array(length), jnp.array(tokens), jnp.array(running), 6, seen)

    def places(rows):
        return rows.length, rows.length * 0

    return run(Counter(), rows, places, chooser, jnp.array(end_ids, jnp.int32), limit)


def test_rows_grow_until_they_end():
    # 1 + 1 = 2, + 2 = 4, + 3 = 7 ends;  0 + 0 = 0, + 1 = 1, + 2 = 3, + 3 = 6, + 4 = 2
    rows = count([1, 0, 5], [1, 0, 2], [True, True, False], limit=5)
    assert fetch(rows.answers, rows.count) == [[2, 4], [0, 1, 3, 6, 2], []]
    assert rows.length.tolist() == [4, 5, 2]
    assert rows.running.tolist() == [False, True, False]
    assert int(rows.step) == 5


def test_nothing_runs_when_all_have_ended():
    rows = count([4, 2], [3, 5], [True, True], limit=6)
    assert int(rows.step) == 1
    assert fetch(rows.answers, rows.count) == [[], []]


def test_a_penalty_sees_what_was_fed_and_chosen():
    # The wanted id is worth less than the others, 0, once it was there and divided by much.
    rows = count([0, 0], [0, 0], [True, True], limit=2, end_ids=[], repetition_penalty=1e30)
    assert rows.seen[0].tolist() == [True, True] + [False] * 6


def test_rows_are_stacked_to_few_shapes():
    tokens, length = stack([[1, 2, 3], [4], [5]], 8)
    assert tokens.tolist() == [[1, 2, 3] + [0] * 5, [4] + [0] * 7, [5] + [0] * 7, [0] * 8]
    assert length.tolist() == [3, 1, 1, 0]
    assert [len(stack([[1]] * count, 8)[0]) for count in (1, 2, 5, 8, 9)] == [2, 2, 8, 8, 16]
    assert fill_up([3], 2).tolist() == [3, 0]


def test_seen_ids_of_each_row():
    seen = np.asarray(ids_seen([[1, 1, 7], [2]], 4, CONFIG))
    assert [np.flatnonzero(row).tolist() for row in seen] == [[1, 7], [2], [], []]


def test_mistakes_are_named():
    check_row([0, 7], CONFIG)
    with pytest.raises(UserError, match="id 8 is outside the vocabulary of 8"):
        check_row([0, 8], CONFIG)
    with pytest.raises(UserError, match="at least 1; got -3"):
        check_new_tokens(-3)


LEARNED = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=1,
    max_positions=12,
    initializer_range=0.3,
    scan_layers=False,
)
ROTARY = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    max_positions=12,
    position_encoding="rotary",
    tied_embeddings=False,
    initializer_range=0.3,
    scan_layers=False,
)


BLOCKS = dataclasses.replace(ROTARY, position_encoding="rotary_block")


@pytest.mark.parametrize(
    "config", [LEARNED, ROTARY, BLOCKS], ids=["learned", "rotary", "rotary_block"]
)
def test_one_token_after_the_other_is_the_row_at_once(config):
    """Two rows of five and of three tokens; the shorter one stops, and nothing of it is seen."""
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    model, draws = bind(config, params), np.random.default_rng(0)
    tokens = draws.integers(0, 24, (2, 5)).astype(np.int32)
    positions = draws.integers(0, 12, (2, 5)).astype(np.int32)
    blocks = draws.integers(0, 12, (2, 5)).astype(np.int32)
    start, end = np.zeros((2, 5), np.int32), np.tile(np.arange(1, 6, dtype=np.int32), (2, 1))
    expected = model.logits(model(tokens, positions, blocks, start, end))

    step = jax.jit(lambda caches, *fed: feed(bind(config, params), caches, *fed))
    caches, length = empty_cache(config, 2, 8), jnp.zeros(2, jnp.int32)
    for place in range(5):
        # The second row has stopped after three: what it writes lies behind its length.
        fed = (tokens[:, place], positions[:, place], blocks[:, place])
        scores, caches = step(caches, length, *fed)
        assert scores.dtype == jnp.float32
        rows = slice(None) if place < 3 else slice(1)
        np.testing.assert_allclose(scores[rows], expected[rows, place], atol=2e-5)
        length = length + jnp.array([1, place < 2])
    # Its third token once more, over the garbage: as at the first time.
    fed = (tokens[:, 2], positions[:, 2], blocks[:, 2])
    scores, _ = step(caches, jnp.array([2, 2]), *fed)
    np.testing.assert_allclose(scores, expected[:, 2], atol=2e-5)
