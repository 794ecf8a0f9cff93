import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation.bans import Bans, ban_ends, ban_repeats, check_bans

SCORES = np.zeros((2, 8), np.float32)


def banned(scores):
    return [np.flatnonzero(np.isinf(row)).tolist() for row in np.asarray(scores)]


_ban_repeats = jax.jit(ban_repeats, static_argnums=4)


def repeats(answer, n, others=()):
    """What is banned behind an answer; the places behind it hold what must not count."""
    ids = [*answer, *others, *[0] * 8][:8]
    answers, counts = np.array([ids, ids]), np.array([len(answer), 0])
    found = banned(_ban_repeats(SCORES, answers, counts, np.array([n, n]), n))
    # The largest n of a program may be another row's.
    others = banned(_ban_repeats(SCORES, answers, counts, np.array([n, 0]), 4))
    assert others == found
    assert found[1] == []  # of an empty answer
    return found[0]


def test_an_end_before_its_time():
    early = np.array([True, False])
    assert banned(jax.jit(ban_ends)(SCORES, early, np.array([[6, 0]] * 2))) == [[0, 6], []]
    # The -1 of rows with fewer ends is not the last id.
    both = np.array([[6, 0], [7, -1]])
    assert banned(jax.jit(ban_ends)(SCORES, np.array([True, True]), both)) == [[0, 6], [7]]


def test_an_ngram_does_not_come_twice():
    assert repeats([4, 5, 6, 4, 5], 3) == [6]
    assert repeats([4, 5, 6, 4, 5], 2) == [6]
    assert repeats([4, 5, 4, 6, 4], 2) == [5, 6]
    assert repeats([4, 5, 6], 1) == [4, 5, 6]
    assert repeats([3, 3, 3], 3) == [3]
    assert repeats([3, 3], 3) == []
    # 4 5 is at the end only, and the 7 behind it is not there yet.
    assert repeats([1, 4, 5], 3, others=(7, 4, 5, 7)) == []


def test_an_ngram_longer_than_any_answer_bans_nothing():
    answers, counts = np.zeros((2, 4), np.int32), np.array([4, 4])
    assert banned(_ban_repeats(SCORES, answers, counts, np.array([5, 5]), 5)) == [[], []]


def test_bans_know_how_far_each_row_is():
    answers = np.array([[4, 5, 4, 0], [4, 5, 4, 0]], np.int32)
    bans, ends = Bans.create([3, 3], [2, 2]), np.array([[7], [7]])
    scores = jax.jit(Bans.apply)(bans, SCORES, answers, np.array([3, 2]), ends)
    assert banned(scores) == [[5], [7]]
    # Each row has its own.
    scores = jax.jit(Bans.apply)(
        Bans.create([4, 0], [0, 1]), SCORES, answers, np.array([3, 2]), ends
    )
    assert banned(scores) == [[7], [4, 5]]
    nothing, logits = Bans.create([0, 0], [0, 0]), jnp.asarray(SCORES)
    assert nothing.apply(logits, jnp.asarray(answers), jnp.array([3, 3]), ends) is logits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0; got -1"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be at least 0"),
    ],
)
def test_negative_numbers_are_named(options, message):
    with pytest.raises(UserError, match=message):
        check_bans(**{"min_new_tokens": 0, "no_repeat_ngram": 0, **options})
