import subprocess
import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.byte_pairs import BytePairs, byte_characters

BYTES = list(byte_characters().values())


def coder(*merges):
    pieces = [*BYTES, *("".join(merge) for merge in merges)]
    return BytePairs({piece: index for index, piece in enumerate(pieces)}, merges)


@pytest.mark.parametrize(
    ("text", "merges", "expected"),
    [
        # Of two merges that meet, the one across the border of two words does not apply.
        ("It's 3", [("t", "'"), ("'", "s"), ("s", "Ġ"), ("Ġ", "3")], ["I", "t", "'s", " 3"]),
        ("3.5  t", [("3", "."), (".", "5"), ("Ġ", "Ġ"), ("Ġ", "t")], ["3", ".", "5", " ", " t"]),
        (
            "n\n\ns! ",
            [("Ċ", "Ċ"), ("Ċ", "s"), ("s", "!"), ("!", "Ġ")],
            ["n", "\n", "\n", "s", *"! "],
        ),
        ("a1b", [("a", "1"), ("1", "b")], ["a", "1", "b"]),
        (" \n x", [("Ġ", "Ċ"), ("Ċ", "Ġ"), ("Ġ", "x")], [" \n", " x"]),
        ("", [], []),
    ],
)
def test_words(text, merges, expected):
    made = coder(*merges)
    assert [made.decode([id_]) for id_ in made.encode(text)] == expected


def test_letters_of_other_scripts_belong_to_one_word():
    first, second = (byte_characters()[byte] for byte in ("b中".encode()[:2]))
    joined = coder((first, second)).encode("b中")
    assert joined[0] == 256
    assert len(joined) == 3


def test_bytes_have_letters():
    characters = byte_characters()
    assert (characters[ord(" ")], characters[ord("\n")], characters[ord("a")]) == ("Ġ", "Ċ", "a")
    assert len(set(characters.values())) == 256


def test_merges_in_their_order():
    """ "lower": o w first, then l ow, then e r; "Ġlow" needs "low", which comes before it."""
    made = coder(("o", "w"), ("l", "ow"), ("e", "r"), ("Ġ", "low"))
    low, er, blank_low = 257, 258, 259
    assert made.encode("low lower") == [low, blank_low, er]
    assert made.decode(made.encode("low 中 é\n")) == "low 中 é\n"
    assert made.decode(made.encode("中")[:1]) == "�"


def test_pieces_without_an_id():
    assert BytePairs({"a": 0, "<unk>": 1}, [], "<unk>").encode("abb") == [0, 1, 1]
    assert BytePairs({"a": 0}, []).encode("ab") == [0]


@pytest.mark.parametrize("merge", [("a", "b"), ("a",), ("a", "a", "a"), ("a", "")])
def test_damaged_merges(merge):
    with pytest.raises(UserError, match=f"must be of two pieces .*; got '{' '.join(merge)}'$"):
        BytePairs({"a": 0, "b": 1, "aa": 2}, [("a", "a"), merge])


WITHOUT = """
import sys
sys.modules["tokenizers"] = None
from glm_jax.tokenizers.tokenizer import load_tokenizer
tokenizer = load_tokenizer("bundled")
assert tokenizer.decode(tokenizer.encode("the light was good")) == "the light was good"
from glm_jax.tokenizers.byte_pairs import BytePairs
from glm_jax.tokenizers.wordpiece import WordPieces
"""


@pytest.mark.parametrize(
    ("made", "which"),
    [('BytePairs({"a": 0}, [])', "byte pairs"), ('WordPieces(["[UNK]"])', "word pieces")],
)
def test_only_byte_pairs_and_word_pieces_need_the_package(made, which):
    code = WITHOUT + made
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith(f"glm_jax.errors.UserError: vocabularies of {which}")
    assert last.endswith("pip install tokenizers")
