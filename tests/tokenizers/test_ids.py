"""Ids where text is meant, text where ids are meant: one sentence that says what to write."""

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.ids import check_text, id_row, id_rows, ids_behind, one_or_more, shared

GOOD = [[1, 2], (1, 2), np.array([1, 2]), np.array([1, 2], np.uint8), [np.int64(1), 2]]


@pytest.mark.parametrize("row", GOOD, ids=repr)
def test_ids_of_one_text(row):
    found = id_row("f", row, "g")
    assert found == [1, 2]
    assert all(type(id_) is int for id_ in found)
    assert one_or_more("f", row, "g") == ([[1, 2]], False)
    assert one_or_more("f", [row, row], "g") == ([[1, 2], [1, 2]], True)
    assert id_rows("f", [row, []], "g") == [[1, 2], []]


def test_arrays_of_jax():
    import jax.numpy as jnp

    assert id_row("f", jnp.array([1, 2]), "g") == [1, 2]
    assert id_rows("f", jnp.array([[1, 2]]), "g") == [[1, 2]]
    assert id_row("f", [jnp.int32(1), jnp.int32(2)], "g") == [1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("The dog.", "f takes ids and got text, 'The dog.'; write g"),
        (b"The dog.", "f takes ids and got text"),
        (["The", "dog"], "f takes ids and got text, 'The'; write g"),
        (3, r"f takes a list of ids and got one id: write \[3\]"),
        (np.int32(3), r"got one id: write \[3\]"),
        (None, "f takes a list of ids; got None"),
        ([1.5], "whole numbers in a list; got 1.5"),
        (np.array([1.0]), "whole numbers in a list; got 1.0"),
        ([[1, 2]], "the ids of one text, whole numbers in a list; got a list of lists"),
        (np.array([[1, 2]]), "got a list of lists"),
    ],
    ids=repr,
)
def test_what_is_no_row_of_ids(value, message):
    with pytest.raises(UserError, match=message):
        id_row("f", value, "g")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("The dog.", "f takes ids and got text"),
        (["The dog."], "f takes ids and got text, 'The dog.'; write g"),
        ([1, 2, 3], r"a list of prompts, each a list of ids; got ids alone: write \[\[1, 2, 3\]\]"),
        (np.array([1, 2]), r"write \[\[1, 2\]\]"),
        ([[1], ["a"]], "f takes ids and got text, 'a'"),
    ],
    ids=repr,
)
def test_what_is_no_list_of_rows(value, message):
    with pytest.raises(UserError, match=message):
        id_rows("f", value, "g")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"f takes text and got \[1, 2\]; ids go elsewhere"),
        (np.array([1, 2]), "f takes text and got array"),
        (3, "f takes text and got 3; ids go elsewhere"),
        (None, "f takes text and got None"),
        (b"The dog", r"f takes text and got bytes; write text.decode\(\)"),
        (["a", "b"], "f takes one text and got several"),
        ("caf\udce9", r"f takes text; '\\udce9' at 3 is not a character"),
    ],
    ids=repr,
)
def test_what_is_no_text(value, message):
    with pytest.raises(UserError, match=message):
        check_text("f", value, "ids go elsewhere")


def test_text():
    assert check_text("f", "床 \N{GRINNING FACE}", "g") == "床 \N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([4], [5], 0)],
)
def test_shared(one, other, length):
    assert shared(one, other) == shared(other, one) == length


@pytest.mark.parametrize(
    ("before", "text", "ids"),
    [
        ("it was ", "good", [-3]),  # the space in front is the text's
        ("it", " was good", [-2, -3]),
        ("un", "do", [5]),  # "undo" is one word: that of "do" by itself
        ("it", "", []),
    ],
)
def test_a_text_behind_another(before, text, ids):
    """Ids of words: above 0 at the beginning, below 0 behind a space."""
    words = ["", "it", "was", "good", "un", "do", "undo"]

    def encode(text):
        return [
            words.index(word) * (-1 if at else 1) for at, word in enumerate(text.split(" ")) if word
        ]

    assert encode("it was good") == [1, -2, -3]
    assert ids_behind(encode, before, text) == ids
