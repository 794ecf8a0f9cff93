import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.generation.bans import host_array
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.slots import Rules, Slots, feed, fill_up, ids_seen, split_answers, stack
from glm_jax.models.params import bind, create_params
from glm_jax.sharding.mesh import make_mesh


class Counter:
    """Stands for a model: the best id is the one fed plus its position, within 8."""

    def extend(self, tokens, positions, block_positions, attend_start, attend_end, caches):
        np.testing.assert_array_equal(attend_start.shape, tokens.shape)
        return jnp.stack([tokens + positions, attend_end], axis=-1), caches

    def logits(self, hidden):
        return jnp.float32(jnp.arange(8) == hidden[:, :1] % 8)


def slots_of(token, length, limits, end_ids, fills=False, blanks=None, total=1000, **options):
    """Rows without caches, of which those with a limit run."""
    size, zero = len(token), jnp.zeros(len(token), jnp.int32)
    chooser = Chooser.create([Sampling(**options)] * size, row_keys([0] * size, [[]] * size, size))
    rules = Rules(
        zero, host_array(end_ids), host_array(limits), host_array([total] * size), chooser
    )
    number = [len(row) for row in blanks] if fills else [limit > 0 for limit in limits]
    widest = max(map(len, blanks)) if fills else 1
    positions = [[*row, *[0] * (widest - len(row))] for row in blanks or [[]] * size]
    seen = jnp.array(ids_seen([[one] for one in token], size, 8)) if chooser.penalises else None
    return Slots(
        *[[], *(jnp.array(values, jnp.int32) for values in (length, token, positions, number))],
        *[zero, zero, jnp.zeros((size, 12), jnp.int32), zero, seen, rules, fills],
    )


def run(slots, steps=1000):
    done = 0
    while done < steps and slots.running.any():
        slots = jax.tree.map(jnp.asarray, slots)
        slots, done = slots.advance(*slots.feed(Counter())), done + 1
    return slots, done


def chosen(slots):
    return [row[:n].tolist() for row, n in zip(slots.chosen, slots.count, strict=True)]


def test_texts_grow_until_they_end():
    # 1 + 1 = 2, + 2 = 4, + 3 = 7 ends;  0 + 0 = 0, + 1 = 1, + 2 = 3, + 3 = 6, + 4 = 2
    ends = [[7], [7], [7]]
    slots, steps = run(slots_of([1, 0, 5], [1, 0, 2], [5, 5, 0], ends))
    assert chosen(slots) == [[2, 4, 7], [0, 1, 3, 6, 2], []]
    assert slots.length.tolist() == [4, 5, 2]
    assert slots.running.tolist() == [False, False, False]
    assert steps == 5


def test_each_row_has_its_own_ends_and_limit():
    slots, steps = run(slots_of([1, 0, 0], [1, 0, 0], [9, 2, 9], [[4, -1], [7, 6], [3, -1]]))
    assert chosen(slots) == [[2, 4], [0, 1], [0, 1, 3]]
    assert steps == 3


def test_a_row_goes_on_to_its_next_blank_at_once():
    """An id is the sum of the one fed, 0 at first, and of the blank's position, modulo 8; 6 ends.

    Blanks at 3 and 4, two ids at most: 3, 6 ends; 4, 0 and cut off by its length.
    Blank at 2, three ids at most: 2, 4, 6 ends.
    """
    both = slots_of([0, 0], [5, 5], [2, 3], [[6], [6]], fills=True, blanks=[[3, 4], [2]])
    slots, steps = run(both)
    assert chosen(slots) == [[3, 6, 4, 0], [2, 4, 6]]
    assert slots.index.tolist() == [2, 1]
    assert steps == 4
    short = slots_of([0], [5], [2], [[6]], fills=True, blanks=[[3, 4]], total=3)
    assert chosen(run(short)[0]) == [[3, 6, 4]]


def test_bans_know_the_present_answer_only():
    """Blanks at 2 and 5, two ids at most: 2 4 and 5 2, though no id may come twice in an answer."""
    both = slots_of([0], [5], [2], [[7]], fills=True, blanks=[[2, 5]], no_repeat_ngram=1)
    assert chosen(run(both)[0]) == [[2, 4, 5, 2]]


def test_positions_of_a_blank_and_of_a_text():
    blanks = slots_of([0, 0], [5, 5], [2, 2], [[6], [6]], fills=True, blanks=[[3, 4], [2]])
    assert [part.tolist() for part in blanks.positions()] == [[3, 2], [1, 1]]
    texts = slots_of([0, 0], [5, 7], [2, 2], [[6], [6]])
    assert [part.tolist() for part in texts.positions()] == [[5, 7], [0, 0]]


def test_a_penalty_sees_what_was_fed_and_chosen():
    # The wanted id is worth less than the others, 0, once it was there and divided by much.
    texts = slots_of([0, 0], [0, 0], [2, 2], [[-1], [-1]], repetition_penalty=1e30)
    slots, _ = run(texts)
    assert slots.seen[0].tolist() == [True, True] + [False] * 6


def test_rows_are_stacked_to_few_shapes():
    tokens, length = stack([[1, 2, 3], [4], [5]], 8)
    assert tokens.tolist() == [[1, 2, 3] + [0] * 5, [4] + [0] * 7, [5] + [0] * 7, [0] * 8]
    assert length.tolist() == [3, 1, 1, 0]
    assert [len(stack([[1]] * count, 8)[0]) for count in (1, 2, 5, 8, 9)] == [2, 2, 8, 8, 16]
    assert len(stack([[1]] * 3, 8, least=1)[0]) == 4
    assert fill_up([3], 2).tolist() == [3, 0]


def test_seen_ids_of_each_row():
    seen = np.asarray(ids_seen([[1, 1, 7], [2]], 4, 8))
    assert [np.flatnonzero(row).tolist() for row in seen] == [[1, 7], [2], [], []]


def test_what_a_row_has_chosen_is_cut_into_answers():
    assert split_answers([4, 5, 6, 7, 8, 9], 3, [6], 3) == [[4, 5], [7, 8, 9], []]
    assert split_answers([6, 6], 2, [6], 3) == [[], []]
    assert split_answers([4, 5], 1, [6], 2) == [[4, 5]]


LEARNED = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=1,
    max_positions=12,
    initializer_range=0.3,
).resolved(ComputeConfig(scan_layers=False))
ROTARY = ModelConfig(
    vocab_size=24,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    max_positions=12,
    position_encoding="rotary",
    tied_embeddings=False,
    initializer_range=0.3,
).resolved(ComputeConfig(scan_layers=False))


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
