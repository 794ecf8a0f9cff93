import pytest

from glm_jax.tokenizers.byte_pairs import BytePairs, byte_characters, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5  there", ["It", "'s", " 3", ".", "5", " ", " there"]),
        ("don't\n\nstop! ", ["don", "'t", "\n", "\n", "stop", "!", " "]),
        ("a1中b，", ["a", "1", "中b", "，"]),
        (" \n x", [" \n", " x"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_bytes_have_letters():
    characters = byte_characters()
    assert (characters[ord(" ")], characters[ord("\n")], characters[ord("a")]) == ("Ġ", "Ċ", "a")
    assert len(set(characters.values())) == 256


def test_merges_in_their_order():
    """ "lower": o w first, then l ow, then e r; "Ġlow" never, its merge comes from "lo"."""
    pieces = [*byte_characters().values(), "ow", "low", "er", "Ġlow"]
    ids = {piece: index for index, piece in enumerate(pieces)}
    coder = BytePairs(ids, [("o", "w"), ("l", "ow"), ("e", "r"), ("Ġ", "low")])
    low, er, blank_low = ids["low"], ids["er"], ids["Ġlow"]
    assert coder.encode("low lower") == [low, blank_low, er]
    assert coder.decode(coder.encode("low 中 é\n")) == "low 中 é\n"
    assert coder.decode(coder.encode("中")[:1]) == "�"


def test_pieces_without_an_id():
    assert BytePairs({"a": 0, "<unk>": 1}, [], 1).encode("ab") == [0, 1]
    assert BytePairs({"a": 0}, []).encode("ab") == [0]
