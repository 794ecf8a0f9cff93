import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generation import running_programs as programs
from glm_jax.generation.bans import Bans
from glm_jax.generation.sampling import Chooser, Sampling, row_keys
from glm_jax.generation.slots import Rules, Slots

LOGITS = jnp.log(jnp.array([[0.1, 0.2, 0.4, 0.3], [0.7, 0.1, 0.1, 0.1], [0.25] * 4]))


GREEDILY = (Sampling(),) * 3


def slots(hows=GREEDILY):
    """Three slots of a causal model before their first step, the last one free."""
    chooser = Chooser.create(hows, row_keys([0] * 3, [[1], [2], [3]], 3))
    zeros, most, ends = jnp.zeros(3, jnp.int32), jnp.full(3, 5, jnp.int32), [[2], [3], [3]]
    rules = Rules(zeros, jnp.array(ends), most, most, chooser)
    made = Slots(
        [], zeros, zeros, zeros[:, None], jnp.array([1, 1, 0]), zeros, zeros,
        jnp.zeros((3, 5), jnp.int32), zeros, jnp.zeros((3, 4), bool),
        programs.with_code(rules, programs.GREEDY), False,
    )  # fmt: skip
    return jax.tree.map(jnp.copy, made)  # donated: no two arrays may be one


def test_what_a_step_tells():
    after, told = programs.advance(slots(), LOGITS, code=programs.GREEDY, most=0)
    assert told.ids[:2].tolist() == [2, 0]
    assert told.grew.tolist() == [True, True, False]
    assert told.ends.tolist()[:2] == [True, False]
    assert told.ended.tolist() == [True, False, True]
    assert told.scores is None
    assert after.count.tolist() == [1, 1, 0]


def test_scores_are_log_probabilities_best_first():
    _, told = programs.advance(slots(), LOGITS, code=programs.GREEDY, most=2)
    np.testing.assert_allclose(told.scores.chosen[:2], np.log([0.4, 0.7]), rtol=1e-6)
    assert told.scores.ids[0].tolist() == [2, 3]
    np.testing.assert_allclose(told.scores.values[0], np.log([0.4, 0.3]), rtol=1e-6)


def test_no_more_scores_than_the_vocabulary_has():
    _, told = programs.advance(slots(), LOGITS, code=programs.GREEDY, most=20)
    assert told.scores.ids.shape == (3, 4)


def test_code_that_a_row_does_not_ask_for_changes_nothing():
    """A row at temperature 1 draws the same with code for top-k and penalties beside it."""
    hows = (Sampling(1.0), Sampling(), Sampling())
    draws = [
        programs.advance(slots(hows=hows), LOGITS, code=code, most=0)[1].ids.tolist()[:2]
        for code in (programs.DRAWS, programs.EVERYTHING)
    ]
    assert draws[0] == draws[1]
    assert draws[0][1] == 0


def test_rules_keep_no_code():
    after, _ = programs.advance(slots(), LOGITS, code=programs.EVERYTHING, most=0)
    chooser = after.rules.chooser
    assert (chooser.draws, chooser.narrows, chooser.penalises) == (False, False, False)
    assert chooser.bans == Bans(chooser.bans.least, chooser.bans.ngram, False, 0)


def test_copies_share_nothing():
    whole = [jnp.arange(3)]
    copy = programs.copied(whole)
    assert copy[0] is not whole[0]
    assert copy[0].unsafe_buffer_pointer() != whole[0].unsafe_buffer_pointer()
