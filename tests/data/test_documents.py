import collections
import dataclasses
import json

import numpy as np
import pytest

from glm_jax.config import DataConfig
from glm_jax.data import cutting, documents
from glm_jax.data.documents import scan
from glm_jax.errors import UserError


def texts(corpus):
    return [corpus.read(index) for index in range(len(corpus.locations))]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return DataConfig(source=str(tmp_path / "*"))

    return write


def test_empty_lines_end_documents(write):
    data = write("a.txt", "\n\nIn the beginning\nGod created\n \t\n\n\nThe light\n\nwas good")
    assert texts(scan(data)) == ["In the beginning\nGod created", "The light", "was good"]


def test_carriage_returns_and_byte_order_mark_do_not_count(write):
    data = write("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    assert texts(scan(data)) == ["one\ntwo", "three"]


def test_files_come_in_order_of_their_names(write):
    write("b.jsonl", '{"text": "from b", "id": 1}\n\n{"text": "  "}\n{"text": "x\\n\\ny"}')
    data = write("a.txt", "from a")
    assert texts(scan(data)) == ["from a", "from b", "x\n\ny"]


def test_text_field(write):
    data = write("a.jsonl", '{"body": "天地", "text": "no"}\n{"body": "玄黃"}')
    assert texts(scan(dataclasses.replace(data, text_field="body"))) == ["天地", "玄黃"]


def test_lines_that_are_not_utf8_are_left_out_counted_and_named(write, tmp_path):
    data = write("a.txt", b"one\ntwo \xff\nthree\n\n\xc3\x28\n\nfour\n\n\xfe\n\xfe\nfive \xe4\xb8")
    corpus = scan(data)
    assert texts(corpus) == ["one\nthree", "four"]
    path = tmp_path / "a.txt"
    assert corpus.skipped.summary() == (
        f"skipped 5 lines: 5 not UTF-8 ({path}:2, {path}:5, {path}:9, ..)"
    )


def test_lines_with_nuls_are_left_out_counted_and_named(write, tmp_path):
    data = write("a.txt", b"a line of text\n" * 9 + b"\0\0\nbad\0line\n\nmore\n\ncut \0 \xff")
    write("b.jsonl", json.dumps({"text": "half\0a text"}))
    corpus = scan(data)
    assert texts(corpus) == ["\n".join(["a line of text"] * 9), "more"]
    path = tmp_path / "a.txt"
    assert corpus.skipped.summary() == (
        f"skipped 4 lines: 3 with NULs ({path}:10, {path}:11, {tmp_path / 'b.jsonl'}:1), "
        f"1 not UTF-8 ({path}:15)"
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "word\n\nmore".encode("utf-16"), "is UTF-16; data.source takes"),
        ("a.txt", b"\xfe\xff" + "word".encode("utf-16-be"), "is UTF-16;"),
        ("a.txt", "word\n\nmore".encode("utf-32"), "is UTF-32;"),
        ("a.txt", "word\n\nmore".encode("utf-16-le"), "is full of NUL bytes"),
        ("a.jsonl", '{"text": "word"}'.encode("utf-16"), "is UTF-16;"),
        ("a.jsonl", '{"text": "word"}'.encode("utf-16-be"), "is full of NUL bytes"),
        ("a.tfrecord", b"\x1f\x8b\x08\0", r"is compressed \(gzip\)"),
    ],
)
def test_files_of_another_encoding_are_refused_by_name(write, tmp_path, name, content, said):
    write("b.txt", "a good one")
    with pytest.raises(UserError, match=f"^'{tmp_path / name}' {said}"):
        scan(write(name, content))


def test_lines_that_end_as_on_the_first_macintosh(write):
    data = write("a.txt", b"one\rtwo\r\rthree\rbad \xff\rfour\r")
    corpus = scan(data)
    assert texts(corpus) == ["one\ntwo", "three\nfour"]
    assert corpus.skipped.summary().endswith("a.txt:5)")


def test_json_lines_without_text_are_left_out_counted_and_named(write, tmp_path):
    lines = [
        b'{"text": "kept"}',
        b'{"text": 3}',
        b"not json",
        b'["text"]',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": "kept too"}',
    ]
    corpus = scan(write("a.jsonl", b"\n".join(lines)))
    assert texts(corpus) == ["kept", "kept too"]
    path = tmp_path / "a.jsonl"
    assert corpus.skipped.summary() == (
        f"skipped 5 lines: 2 without text under 'text' ({path}:2, {path}:4), "
        f"1 not JSON ({path}:3), 1 not UTF-8 ({path}:5), 1 with half a character ({path}:6)"
    )
    assert sum(corpus.skipped.counts.values()) == 5


@pytest.mark.parametrize("content", ["", "\n \n\t\n", b"\xff\n\xfe\n"])
def test_nothing_usable(write, content):
    with pytest.raises(UserError, match="empty corpus: no text in the 1 file"):
        scan(write("a.txt", content))


def test_no_file_is_named_with_its_pattern(tmp_path):
    pattern = str(tmp_path / "*.txt")
    with pytest.raises(UserError, match=r"no file matches data\.source='.*\*\.txt'"):
        scan(DataConfig(source=pattern))


def test_a_book_without_an_empty_line_is_cut_at_line_ends(write, monkeypatch):
    monkeypatch.setattr(cutting, "PART_SIZE", 100)
    book = "\n".join(f"line {number} of a long book" for number in range(40))
    corpus = scan(write("a.txt", book))
    parts = texts(corpus)
    assert "\n".join(parts) == book
    assert all(50 <= len(part) <= 100 for part in parts[:-1])
    assert 0 < corpus.is_eval.sum() < len(parts)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_long_line_is_cut_between_characters(write, monkeypatch, name):
    monkeypatch.setattr(cutting, "PART_SIZE", 100)
    text = "天地玄黃宇宙洪荒" * 50
    content = text if name == "a.txt" else json.dumps({"text": text})
    parts = texts(scan(write(name, content)))
    assert len(parts) >= 4
    assert "".join(parts) == text


def test_split_depends_on_the_text_alone(write):
    numbered = [f"document number {number}" for number in range(4000)]
    data = DataConfig(source=write("a.txt", "\n\n".join(numbered)).source, eval_fraction=0.1)
    first = scan(data)
    held = {first.read(index) for index in first.indices("eval")}
    # Binomial(4000, 0.1): 400 with a standard deviation of 19.
    assert 320 < len(held) < 480
    assert len(first.indices("train")) == 4000 - len(held)

    lines = [json.dumps({"text": text}) for text in reversed(numbered)]
    write("a.txt", "one more\n")
    write("b.jsonl", "\n".join(lines))
    again = scan(data)
    assert {again.read(index) for index in again.indices("eval")} - {"one more"} == held


def test_no_split_is_left_without_documents(write):
    for fraction in (1e-9, 1 - 1e-9):
        data = dataclasses.replace(write("a.txt", "one\n\ntwo\n\nthree"), eval_fraction=fraction)
        corpus = scan(data)
        sizes = collections.Counter(corpus.is_eval.tolist())
        assert sizes == ({True: 1, False: 2} if fraction < 0.5 else {True: 2, False: 1})
        assert not corpus.single


def test_a_single_document_is_in_both_splits(write):
    corpus = scan(write("a.txt", "all there is"))
    assert corpus.single
    for split in documents.SPLITS:
        assert [corpus.read(index) for index in corpus.indices(split)] == ["all there is"]


def test_the_bundled_corpus():
    corpus = scan(DataConfig())
    assert len(corpus.locations) == 637 + 924
    assert corpus.read(0).startswith("In the beginning, God created the heavens and the earth.")
    assert corpus.read(637).startswith("《鄭伯克段於鄢》\n初，鄭武公娶於申，")
    everything = "\n\n".join(texts(corpus))
    assert 4_300_000 < len(everything.encode()) < 4_400_000
    # No control characters, replacement characters, markup or doubled spaces.
    assert not [c for c in set(everything) if ord(c) < 32 and c != "\n"]
    assert not set("<>[]{}|�□＊*#@\xa0\u3000") & set(everything)
    assert "  " not in everything
    assert corpus.skipped.counts == {}
    # 2 % of 1561, give or take.
    assert 15 < len(corpus.indices("eval")) < 45
    assert np.array_equal(np.flatnonzero(corpus.is_eval), corpus.indices("eval"))
