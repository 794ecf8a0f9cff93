import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.decoding import (
    begin,
    check_new_tokens,
    check_row,
    fetch,
    fill_up,
    ids_seen,
    run,
    stack,
)
from glm_jax.generation.sampling import Chooser, Sampling, row_keys

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
