import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.sampling import (
    Chooser,
    Sampling,
    greedy,
    penalise,
    row_keys,
    sample,
)

PROBABILITIES = np.array([0.05, 0.5, 0.2, 0.25])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))


@jax.jit
def choose(chooser, logits, step, seen=None):
    """As decoding calls it: in a compiled program."""
    return chooser.choose(logits, jnp.full(len(logits), step), seen)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_law(temperature):
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    heat, top_k, top_p = jnp.full(draws, temperature), jnp.full(draws, 3), jnp.ones(draws)
    ids = sample(jnp.tile(LOGITS, (draws, 1)), keys, heat, top_k, top_p)
    expected = PROBABILITIES ** (1 / temperature)
    expected[0] = 0.0
    expected /= expected.sum()
    shares = np.bincount(ids, minlength=4) / draws
    assert (np.abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_greedy_takes_the_lower_of_equals():
    assert greedy(jnp.array([[0.0, 2.0, 2.0], [3.0, 1.0, 3.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature .* -1.0"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p .* 1.5"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(UserError, match=message):
        Sampling(**options)


def test_a_penalty_divides_what_speaks_for_an_id():
    logits = jnp.array([[4.0, -3.0, 0.0, 1.0], [4.0, -3.0, 0.0, 1.0]])
    seen = jnp.array([[True, True, True, False], [False, False, True, True]])
    expected = [[2.0, -6.0, 0.0, 1.0], [4.0, -3.0, 0.0, 0.5]]
    assert penalise(logits, seen, 2.0).tolist() == expected


def test_the_penalty_comes_before_all_else():
    # Halved, the best score, 3, falls behind the second, 2.
    logits, seen = jnp.array([[3.0, 2.0, -9.0]]), jnp.array([[True, False, False]])
    for options in ({}, {"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 0.01}):
        sampling = Sampling(repetition_penalty=2.0, **options)
        chooser = Chooser.create([sampling], row_keys([0], [[1]], 1))
        assert choose(chooser, logits, 0, seen).tolist() == [1]
        assert choose(chooser, logits, 0, seen * False).tolist() == [0]


def test_keys_are_of_the_row_and_its_copies():
    def numbers(rows, size, seed=0):
        return np.asarray(jax.random.key_data(row_keys([seed] * len(rows), rows, size))).tolist()

    three = numbers([[5, 9], [7], [5, 9]], 4)
    assert numbers([[7], [5, 9]], 2) == [three[1], three[0]]
    assert len({tuple(key) for key in [*three, numbers([[7]], 1, seed=1)[0]]}) == 5


def test_rows_draw_by_their_own_keys():
    logits = jnp.tile(LOGITS, (3, 1))
    keys = row_keys([0] * 3, [[1], [2], [3]], 3)
    draws = {}
    for options in ({}, {"top_k": 3}):
        sampling = Sampling(temperature=1.0, **options)
        chooser = Chooser.create([sampling] * 3, keys)
        draws = [choose(chooser, logits, step).tolist() for step in range(20)]
        alone = Chooser.create([sampling], keys[1:2])
        expected = [choose(alone, LOGITS[None], step)[0] for step in range(20)]
        assert [draw[1] for draw in draws] == expected
        assert len({tuple(row) for row in zip(*draws, strict=True)}) == 3


def test_rows_of_one_program_are_chosen_each_in_its_own_way():
    """Greedy, narrowed and free side by side: each as in a program of its own."""
    rows = [Sampling(), Sampling(1.0, top_k=2, seed=3), Sampling(2.0), Sampling(1.0, top_p=0.6)]
    keys = row_keys([row.seed for row in rows], [[1], [2], [3], [4]], 4)
    together = Chooser.create(rows, keys)
    assert (together.draws, together.narrows, together.penalises) == (True, True, False)
    logits = jnp.tile(LOGITS, (4, 1))
    found = [choose(together, logits, step).tolist() for step in range(30)]
    for index, sampling in enumerate(rows):
        alone = Chooser.create([sampling], keys[index : index + 1])
        for step, ids in enumerate(found):
            assert choose(alone, LOGITS[None], step).tolist() == [ids[index]]
    drawn = [set(ids) for ids in zip(*found, strict=True)]
    assert (drawn[0], drawn[1], drawn[3]) == ({1}, {1, 3}, {1, 3})
    assert len(drawn[2]) == 4
