"""Objects of .jsonl and .json files, with their lines."""

import pytest

from glm_jax.data.documents import Skipped
from glm_jax.data.examples.files import example_files, records
from glm_jax.errors import UserError


def read(*files):
    skipped = Skipped()
    found = [(one.file, one.line, one.values) for one in records(list(files), skipped)]
    return found, skipped.summary()


def test_lines_and_lists(tmp_path):
    lines, listed = tmp_path / "b.jsonl", tmp_path / "a.json"
    lines.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\r\n[3]')
    listed.write_text('[{"a": 4},\n {"a": 5}]')
    assert example_files(f"{tmp_path}/*") == [listed, lines]
    assert example_files(str(lines)) == [lines]
    found, said = read(listed, lines)
    assert found == [
        (0, 1, {"a": 4}),
        (0, 2, {"a": 5}),
        (1, 1, {"a": 1}),
        (1, 3, {"a": 2}),
        (1, 4, [3]),
    ]
    assert said == ""


def test_bad_lines_are_left_out_and_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \xff}\n{"a": \n' + b"[" * 100_000 + b"\n")
    found, said = read(file)
    assert found == [(0, 1, {"a": 1})]
    assert said == f"skipped 3 lines: 1 not UTF-8 ({file}:2), 2 not JSON ({file}:3, {file}:4)"


def test_files_that_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*\(a directory; name its files"):
        example_files(str(tmp_path))
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"end in \.jsonl, \.json, \.tsv or \.source; got"):
        example_files(f"{tmp_path}/*")
    utf16 = tmp_path / "a.jsonl"
    utf16.write_text('{"a": 1}', encoding="utf-16")
    with pytest.raises(UserError, match="is UTF-16"):
        read(utf16)
    for name, content, message in (
        ("b.json", '{"a": 1}\n{"a": 2}', r"it is not JSON .*; objects a line belong into \.jsonl"),
        ("c.json", '{"a": 1}', "must hold a list of objects; got dict"),
        ("d.json", b'["\xff"]', "it is not UTF-8"),
    ):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=message):
            read(file)
