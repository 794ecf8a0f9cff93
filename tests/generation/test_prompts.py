"""What is wrong with a prompt; how prompts are read is tested with what goes on from them."""

import numpy as np
import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.prompts import blanks_of, check_blanks, check_prompts

FILLS = ModelConfig(vocab_size=24, embed_dim=16, num_heads=2, max_positions=12)
CONTINUES = ModelConfig(
    vocab_size=24, embed_dim=16, num_heads=2, max_positions=12, position_encoding="rotary"
)


def test_blanks_are_masks_within_a_row():
    tokens = np.array([[5, 2, 7, 2, 0], [7, 6, 2, 0, 2]])
    found = blanks_of(tokens, [[5, 2, 7, 2], [7, 6]], [2, 7])
    assert found.tolist() == [[False, True, True, True, False], [True] + [False] * 4]


def test_rows_and_their_answers_take_so_many_slots():
    """Rows of 4 with two masks and of 6 with one, 3 ids for each: 4 + 6 and 6 + 3."""
    assert check_blanks(FILLS, [[5, 2, 7, 2], [1, 1, 1, 1, 1, 2]], [2], 3) == 10


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
        check_blanks(FILLS, rows, [2], 3)


def test_prompts_that_cannot_be_continued():
    check_prompts([[5, 6]], CONTINUES, [3], 10, 0)
    with pytest.raises(UserError, match="fills blanks and does not continue texts"):
        check_prompts([[5, 6]], FILLS, [3], 4, 0)
    with pytest.raises(UserError, match="prompt 1 of 2 tokens and max_new_tokens=11 do not fit"):
        check_prompts([[5], [5, 6]], CONTINUES, [3], 11, 0)
