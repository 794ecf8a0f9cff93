"""Where long texts are cut; the parts are written out by hand."""

import json

import pytest

from glm_jax.config import DataConfig
from glm_jax.data import cutting
from glm_jax.data.cutting import cut, joined, tidy
from glm_jax.data.documents import scan


@pytest.fixture
def size(monkeypatch):
    def size(number):
        monkeypatch.setattr(cutting, "PART_SIZE", number)

    return size


def test_tidy():
    assert tidy("\ufeff one\r\ntwo\rthree\n") == "one\ntwo\nthree"


def test_a_short_text_is_one_document(size):
    size(10)
    assert cut("  123456789\n") == ["123456789"]
    assert cut(" 0123456789 ") == ["0123456789"]
    assert cut("\ufeff\n") == cut("") == []


def test_a_line_s_end_comes_before_a_space_and_a_space_before_a_character(size):
    size(10)
    # The second half of a part is bytes 5 .. 9, and what follows it may be its line's end.
    assert cut("abcd ef\ng hijkl") == ["abcd ef", "g hijkl"]
    assert cut("ab\ndef ghijkl") == ["ab\ndef", "ghijkl"]
    assert cut("0123456789\nabc") == ["0123456789", "abc"]
    assert cut("ab\ndefghijkl") == ["ab\ndefghij", "kl"]
    assert cut("abcdef\rghijkl") == ["abcdef", "ghijkl"]


def test_sizes_are_bytes(size):
    size(10)
    assert cut("天地玄黃宇宙洪荒") == ["天地玄", "黃宇宙", "洪荒"]


@pytest.mark.parametrize(
    "grapheme",
    [
        "e\u0301",  # a letter and its accent
        "e\u0323\u0301",
        "♥\ufe0f",  # variation selector
        "👩\u200d👩\u200d👧",  # a family
        "👍\U0001f3fd",  # a tone of skin
        "🇩🇪",  # a flag
        "क\u094dष",  # letters joined by a virama
        "\u1100\u1161\u11a8",  # jamo of one syllable
        "1\ufe0f\u20e3",
        "น\u0e33",
        "\uff76\uff9e",
    ],
)
def test_no_grapheme_is_cut(size, grapheme):
    """Whatever stands before it: the part ends before the grapheme, or behind it."""
    size(60)
    for before in range(10, 61):
        text = "x" * before + grapheme + "y" * 40
        parts = cut(text)
        assert "".join(parts) == text
        assert sum(grapheme in part for part in parts) == 1, before
        assert all(len(part.encode()) <= 60 for part in parts)


def test_flags_are_counted_from_the_first(size):
    size(60)
    parts = cut("x" + "🇩🇪🇫🇷" * 20)
    assert len(parts) > 2
    assert {part.lstrip("x")[0] for part in parts} <= {"🇩", "🇫"}


def test_a_space_that_carries_an_accent_is_no_space(size):
    size(10)
    assert cut("abcdef \u0301ghijkl") == ["abcdef \u0301g", "hijkl"]


def test_marks_without_end_are_cut_between_characters(size):
    size(10)
    text = "e" + "\u0301" * 20
    assert "".join(cut(text)) == text


def test_joined():
    assert joined("e", "\u0301")
    assert joined("\u200d", "👧")
    assert not joined("e", "x")
    assert not joined("天", "地")
    assert not joined("가", "각")


@pytest.mark.parametrize("line", ["word " * 40, "天地e\u0301" * 40, "one line\r\nand\r\n" * 20])
def test_files_records_and_texts_give_the_same_documents(size, tmp_path, line):
    size(64)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\n\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": line}))
    found = []
    for name in ("a.txt", "a.jsonl"):
        corpus = scan(DataConfig(source=str(tmp_path / name)))
        found.append([corpus.read(index) for index in range(len(corpus.locations))])
    assert found[0] == found[1] == cut(line)
    assert len(found[0]) > 2
