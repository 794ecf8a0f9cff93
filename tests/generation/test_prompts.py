"""What is wrong with a prompt; how prompts are read is tested with what goes on from them."""

import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.options import BeamSearch, Limits, Marks
from glm_jax.generation.prompts import (
    check_blanks,
    check_new_tokens,
    check_prompts,
    check_row,
    text_prompts,
)
from glm_jax.generation.sampling import Sampling

FILLS = ModelConfig(vocab_size=24, embed_dim=16, num_heads=2, max_positions=12)
CONTINUES = ModelConfig(
    vocab_size=24, embed_dim=16, num_heads=2, max_positions=12, position_encoding="rotary"
)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no texts to fill"),
        ([[5, 6]], r"none of the mask ids \[2\] is in the text"),
        ([[2, 24]], "id 24 is outside the vocabulary of 24"),
        ([[2] * 14], "a text of 14 tokens does not fit the model's 13 positions"),
    ],
)
def test_texts_that_cannot_be_filled(rows, message):
    with pytest.raises(UserError, match=message):
        check_blanks(rows, FILLS, Marks([2], 4), Limits([5], 3), Sampling())


def test_prompts_that_cannot_be_continued():
    check_prompts([[5, 6]], CONTINUES, Limits([3], 10), Sampling())
    with pytest.raises(UserError, match="fills blanks and does not continue texts"):
        check_prompts([[5, 6]], FILLS, Limits([3], 4), Sampling())
    with pytest.raises(UserError, match="prompt 1 of 2 tokens and max_new_tokens=11 do not fit"):
        check_prompts([[5], [5, 6]], CONTINUES, Limits([3], 11), Sampling())


def test_answers_that_cannot_be_given():
    marks = Marks([2], 4)
    with pytest.raises(UserError, match="min_new_tokens must be at most max_new_tokens=3; got 4"):
        check_blanks([[2]], FILLS, marks, Limits([5], 3), Sampling(min_new_tokens=4))
    with pytest.raises(UserError, match="num_beams=13 is too much for a vocabulary of 24"):
        check_prompts([[5]], CONTINUES, Limits([3], 3), BeamSearch(13))
    with pytest.raises(UserError, match="max_total_tokens must be at least 1; got 0"):
        check_blanks([[2]], FILLS, marks, Limits([5], 3, 0), Sampling())
    with pytest.raises(UserError, match="at least 1; got -3"):
        check_new_tokens(-3)


def test_ids_outside_of_the_vocabulary():
    check_row([0, 23], CONTINUES)
    with pytest.raises(UserError, match="id 24 is outside the vocabulary of 24"):
        check_row([0, 24], CONTINUES)


def test_a_model_that_fills_blanks_continues_by_the_blank_of_a_prompt():
    """[gMASK] (3) is its blank where there are several; else the first mask; sop is 4."""
    marks, options = Marks([2, 3], 4, gmask_id=3), (Limits([5], 3), Sampling())
    both, one, first = text_prompts(
        [[7, 2, 3, 8, 4], [7, 2, 8, 4], [2, 2, 4]], FILLS, *options, marks
    )
    assert (both.ids, both.blanks, both.start_id) == ([7, 2, 3, 8], [2], 4)
    assert (one.ids, one.blanks) == ([7, 2, 8], [1])
    assert first.blanks == [0]
    for row in ([7, 4], [7, 3], [7, 4, 3, 4], [4]):
        with pytest.raises(UserError, match=r"prompt 1 has not: use fill_blanks"):
            text_prompts([[3, 4], row], FILLS, *options, marks)
    (plain,) = text_prompts([[5, 6]], CONTINUES, *options)
    assert (plain.ids, list(plain.blanks)) == ([5, 6], [])
