import math

import pytest

from glm_jax.serving.pieces import Pieces, in_json
from tests.serving.fakes import Bytes

MOON = list("月".encode())


class Words:
    """Pieces as sentencepiece has them: no space in front of a text."""

    pieces = ("▁the", "▁light", "ing", "a", "")

    def encode(self, text):
        return [3]

    def decode(self, ids, skip_special=False):
        return "".join(self.pieces[id_] for id_ in ids).replace("▁", " ").removeprefix(" ")


def test_a_token_has_the_space_in_front_of_it():
    pieces = Pieces(Words())
    assert [pieces.text(id_) for id_ in (0, 1, 2)] == [" the", " light", "ing"]
    assert pieces.offsets([0, 1, 2], "the lighting") == [0, 3, 9]
    assert pieces.offsets([0, 1], " the light") == [0, 4]


def test_bytes_of_a_character_begin_where_it_does():
    pieces = Pieces(Bytes())
    assert pieces.text(MOON[0]) == "\N{REPLACEMENT CHARACTER}"
    assert pieces.offsets([97, *MOON, 98, *MOON, *MOON, 99], "a月b月月c") == [
        *[0, 1, 1, 1, 2],
        *[3] * 6,
        5,
    ]


def test_names_tell_tokens_apart():
    pieces = Pieces(Bytes())
    assert pieces.name(97) == "a"
    assert {pieces.name(id_) for id_ in MOON} == {f"token_id:{id_}" for id_ in MOON}
    assert Pieces(Words()).name(4) == "token_id:4"


NUMBERS = [(-1.5, -1.5), (-math.inf, -9999.0), (-2e4, -9999.0), (math.nan, -9999.0)]


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_json_has_no_infinity(value, expected):
    assert in_json(value) == expected
