"""Rows of answers, and values of their tokens at their slots."""

import numpy as np

from glm_jax.data.examples.example import rows_of
from glm_jax.special_tokens import SpecialTokens
from glm_jax.training.rollouts.rows import answer_example, at_answers, of_answers

SPECIAL = SpecialTokens(mask=90, gmask=91, smask=92, start=93, end=3, cls=94, eos=7, pad=0)


def test_a_causal_answer_goes_on_from_its_prompt():
    made = answer_example([5, 6], [8, 9, 3], SPECIAL, False)
    assert made.tokens.tolist() == [5, 6, 8, 9]
    assert made.targets.tolist() == [6, 8, 9, 3]
    assert made.learnt.tolist() == [False, True, True, True]
    assert made.positions.tolist() == [0, 1, 2, 3]
    assert made.prefix == 0


def test_an_answer_fills_the_blank_of_its_prompt():
    made = answer_example([5, 91, 6, 93], [8, 3], SPECIAL, True)
    assert made.tokens.tolist() == [5, 91, 6, 93, 8]
    assert made.targets[made.learnt].tolist() == [8, 3]
    assert made.positions.tolist() == [0, 1, 2, 1, 1]
    assert made.block_positions.tolist() == [0, 0, 0, 1, 2]
    assert made.prefix == 3


def test_values_stand_at_the_slots_of_their_tokens_and_come_back():
    examples = [
        answer_example([5, 6], [8, 9, 3], SPECIAL, False),
        answer_example([5, 6, 7, 8], [3], SPECIAL, False),
    ]
    batch = rows_of(examples, 6, 0)
    assert batch.tokens.tolist() == [[5, 6, 8, 9, 0, 0], [5, 6, 7, 8, 0, 0]]
    values = np.array([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0]])
    found = at_answers(batch, values)
    assert found.tolist() == [[0, 1, 2, 3, 0, 0], [0, 0, 0, 4, 0, 0]]
    assert found.dtype == np.float32
    assert of_answers(batch, found + 5).tolist() == [[6, 7, 8], [9, 0, 0]]
