"""Beam search over a table of probabilities: every number below can be checked by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from glm_jax.generation.bans import host_array
from glm_jax.generation.beam import Beams
from glm_jax.generation.cache import LayerCache
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.slots import Rules, Slots

END, A, B, C = 0, 1, 2, 3


def table(**rows):
    """log P(next | last), one row a last token; what is not given is (nearly) impossible."""
    found = np.full((4, 4), -1e9, np.float32)
    for last, chances in rows.items():
        for token, chance in chances.items():
            found["EABC".index(last), "EABC".index(token)] = np.log(chance)
    return jnp.asarray(found)


class Chain:
    """Stands for a model: the last token alone says what comes next; its cache holds what was fed.

    A cache [B, 1, S, 1] of ids, written as a real one is.
    """

    def __init__(self, scores):
        self.scores = scores

    def extend(self, tokens, positions, block_positions, start, end, caches):
        (cache,) = caches
        rows = jnp.arange(len(tokens))
        keys = cache.keys.at[rows, 0, cache.length, 0].set(tokens[:, 0])
        return tokens, [dataclasses.replace(cache, keys=keys)]

    def logits(self, hidden):
        return self.scores[hidden]


# a is likelier than b behind C, but what comes behind b is surer.
SCORES = table(C={"A": 0.6, "B": 0.4}, A={"A": 0.45, "B": 0.25, "E": 0.3}, B={"E": 0.9, "A": 0.1})


def rows_at_c(limits, has, **bans):
    """Texts that end in C, of which those that `has` says look for an answer."""
    size = len(limits)
    nothing = jnp.zeros((size, 1, max(limits), 1), jnp.int32)
    zero = jnp.zeros(size, jnp.int32)
    chooser = Chooser.create([Sampling(**bans)] * size, row_keys([], [], size))
    many = host_array([1000] * size)
    rules = Rules(zero, host_array([[END]] * size), host_array(limits), many, chooser)
    ids, token = jnp.zeros((size, max(limits)), jnp.int32), jnp.full(size, C, jnp.int32)
    number = jnp.array(has, jnp.int32)
    caches = [LayerCache(nothing, nothing, zero)]
    blanks = jnp.zeros((size, 1), jnp.int32)
    return Slots(caches, zero, token, blanks, number, zero, zero, ids, zero, None, rules, False)


def run(beams, limit, penalty=0.0, has=(True,), scores=SCORES, **bans):
    """The answers of each row, what they are worth, and the state."""
    limits = [limit] * len(has) if isinstance(limit, int) else limit
    found = Beams.begin(rows_at_c(limits, has, **bans), beams, jnp.float32(penalty))
    while found.running.any():
        found = found.advance(*found.feed(Chain(scores)))
    answers = [
        ["".join("EABC"[i] for i in ids[:n]) for ids, n in zip(row, counts, strict=True)]
        for row, counts in zip(np.asarray(found.finished), np.asarray(found.count), strict=True)
    ]
    return answers, np.exp(found.best), found


def test_one_beam_takes_the_best_each_time():
    answers, worth, _ = run(beams=1, limit=3)
    assert answers == [["AAA"]]
    np.testing.assert_allclose(worth, [[0.6 * 0.45 * 0.45]], rtol=1e-5)


def test_two_beams_find_what_one_does_not():
    """Step by step, candidates by their probabilities:

    A .6    B .4
    BE .36 taken   AA .27   AE .18 dropped: behind the second   AB .15
    ABE .135 taken  ..  two are there, and nothing can be better than the worse of them
    """
    answers, worth, found = run(beams=2, limit=9)
    assert answers == [["B", "AB"]]
    np.testing.assert_allclose(worth, [[0.36, 0.135]], rtol=1e-5)
    assert (found.step.tolist(), found.done.tolist()) == ([3], [True])


def test_with_means_the_longer_win_and_what_the_length_stops_competes():
    """Divided by the length: B ln .36 = -1.02, AB -1.00, AAA ln .1215 / 3 = -.70, AAB -.90."""
    answers, worth, found = run(beams=2, limit=3, penalty=1.0)
    assert answers == [["AAA", "AAB"]]
    np.testing.assert_allclose(worth, [[0.1215 ** (1 / 3), 0.0675 ** (1 / 3)]], rtol=1e-5)
    assert found.step.tolist() == [3]


def test_an_end_at_once_is_an_answer_of_length_one():
    scores = table(C={"E": 0.5, "A": 0.3, "B": 0.2})
    answers, worth, _ = run(beams=2, limit=1, penalty=1.0, scores=scores)
    assert answers == [["", "A"]]
    np.testing.assert_allclose(worth, [[0.5, 0.3]], rtol=1e-5)


def test_bans_come_before_candidates():
    answers, worth, _ = run(beams=2, limit=3, min_new_tokens=2)
    assert answers == [["AB", "AAA"]]
    np.testing.assert_allclose(worth, [[0.135, 0.1215]], rtol=1e-5)
    # No id twice: BE .36 and AE .18 are the first two, AB .15 stays behind them.
    answers, worth, _ = run(beams=2, limit=9, no_repeat_ngram=1)
    assert answers == [["B", "A"]]
    np.testing.assert_allclose(worth, [[0.36, 0.18]], rtol=1e-5)


def test_rows_without_a_blank_wait():
    answers, worth, found = run(beams=2, limit=9, has=(False, True, False))
    assert answers[1] == ["B", "AB"]
    assert not worth[[0, 2]].any()
    assert found.slots.length.tolist() == [0, 0, 3, 3, 0, 0]


def test_each_beam_goes_on_with_the_cache_of_its_own_past():
    """After three steps AAA and AAB go on: both were fed C, A, A."""
    _, _, found = run(beams=2, limit=3, penalty=1.0)
    assert found.slots.chosen.tolist() == [[A, A, A], [A, A, B]]
    assert found.slots.caches[0].keys[:, 0, :, 0].tolist() == [[C, A, A]] * 2
    # Another table, whose beams change places: C B comes to be the better one.
    scores = table(C={"A": 0.6, "B": 0.4}, A={"A": 0.3, "B": 0.7}, B={"A": 0.05, "C": 0.95})
    _, _, found = run(beams=2, limit=2, scores=scores)
    assert found.slots.chosen.tolist() == [[A, B], [B, C]]
    assert found.slots.caches[0].keys[:, 0, :, 0].tolist() == [[C, A], [C, B]]


def test_each_row_has_its_own_limit_and_end():
    """Beside each other as alone: a row of one id at most, and one that goes on to its end."""
    answers, worth, found = run(beams=2, limit=[1, 9], has=(True, True))
    alone = [run(beams=2, limit=[limit]) for limit in (1, 9)]
    assert answers == [alone[0][0][0], alone[1][0][0]] == [["A", "B"], ["B", "AB"]]
    np.testing.assert_array_equal(worth, [alone[0][1][0], alone[1][1][0]])
    assert found.step.tolist() == [1, 3]
