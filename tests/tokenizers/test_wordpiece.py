import pytest

from glm_jax.tokenizers.wordpiece import WordPieces

PIECES = ["[UNK]", "un", "##aff", "##able", "##ab", "it", "'", "s", "中"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's naïve", ["it", "'", "s", "naive"]),
        ("a\tb\u00a0c\x00d", ["a", "b", "cd"]),
        ("中国a", ["中", "国", "a"]),
        ("3.5% -- x^2，", ["3", ".", "5", "%", "-", "-", "x", "^", "2", "，"]),
    ],
)
def test_words(text, expected):
    """Words and punctuation marks, in lower case and without accents."""
    coder = WordPieces(["[UNK]", *dict.fromkeys(expected)])
    assert [coder.pieces[id_] for id_ in coder.encode(text)] == expected


def test_the_longest_piece_first_and_unknown_words():
    coder = WordPieces(PIECES)
    assert coder.encode("UNaffable it's 中国 un" + "a" * 100) == [1, 2, 3, 5, 6, 7, 8, 0, 0]
    assert coder.encode("unaffabl") == [0]
    assert coder.decode([1, 2, 3, 5, 6, 7]) == "unaffable it ' s"


def test_words_of_more_than_a_hundred_letters_are_unknown():
    coder = WordPieces(["[UNK]", "a", "##a"])
    assert coder.encode("a" * 100) == [1] + [2] * 99
    assert coder.encode("a" * 101) == [0]
    assert coder.encode("") == []
