"""One segment of a row, causal and with a blank."""

import dataclasses

import numpy as np
import pytest

import glm_jax
from glm_jax.data.examples.example import (
    FIELDS,
    Example,
    blank_example,
    causal_example,
    example_of,
)
from glm_jax.errors import UserError
from glm_jax.tokenizers.training_example import TrainingExample


def listed(example):
    return {name: getattr(example, name).tolist() for name in FIELDS}


def test_a_causal_example():
    made = causal_example([5, 6, 7, 8], [True, False, True, True])
    assert listed(made) == {
        "tokens": [5, 6, 7],
        "targets": [6, 7, 8],
        "learnt": [False, True, True],
        "positions": [0, 1, 2],
        "block_positions": [0, 0, 0],
    }
    assert (made.prefix, len(made), made.tokens.dtype, made.learnt.dtype) == (0, 3, np.int32, bool)


def test_an_answer_in_a_blank_is_what_assemble_makes():
    a, mask, b, start, end = 11, 1, 12, 2, 3
    ids = [a, a + 1, mask, b, start, 21, 22, end]  # the blank is not the last of part A
    made = blank_example(ids, [False] * 5 + [True] * 3, prefix=4, blank=2)
    whole = glm_jax.corruption.assemble(
        np.array([a, a + 1, 21, 22, b]), [(2, 4)], [0], mask_id=mask, start_id=start, end_id=end
    )
    assert made.prefix == 4
    for name in ("tokens", "positions", "block_positions"):
        assert getattr(made, name).tolist() == whole[name].tolist(), name
    used = whole["loss_weights"] > 0
    assert made.learnt.tolist() == used.tolist()
    assert made.targets[used].tolist() == whole["targets"][used].tolist() == [21, 22, end]


def test_a_text_for_a_model_of_each_kind():
    text = TrainingExample([5, 1, 2, 6, 3], [False] * 3 + [True] * 2, prefix=2, blank=1)
    assert example_of(text, True).prefix == 2
    assert example_of(text, True).block_positions.tolist() == [0, 0, 1, 2]
    assert listed(example_of(text, False)) == listed(causal_example(text.ids, text.learnt))
    plain = dataclasses.replace(text, prefix=0)
    assert example_of(plain, True).prefix == 0


def test_what_is_no_example():
    with pytest.raises(UserError, match="two tokens at least; got 1"):
        causal_example([5], [True])
    with pytest.raises(UserError, match="blank must lie in part A"):
        blank_example([5, 1], [True, True], prefix=2, blank=1)
    row = np.zeros(3)
    with pytest.raises(ValueError, match="one shape"):
        Example(row, row, row, row, row[:2])
    with pytest.raises(ValueError, match=r"prefix must lie in 0\.\.3"):
        Example(row, row, row, row, row, prefix=4)
