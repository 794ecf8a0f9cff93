"""Hashes of files, kept for a large corpus."""

import hashlib
import json
import os

import pytest

from glm_jax.data import file_hashes as module
from glm_jax.data.file_hashes import file_hashes
from glm_jax.errors import UserError


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_KNOWN", {})
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    return [tmp_path / "a", tmp_path / "b"]


def test_of_a_small_corpus_nothing_is_kept(files, tmp_path):
    assert file_hashes(files, tmp_path / "cache") == [sha256("a"), sha256("b")]
    assert not (tmp_path / "cache").exists()


def test_of_a_large_corpus_what_has_not_changed_is_not_read_again(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_FROM", 2)
    file_hashes(files, tmp_path / "cache")
    monkeypatch.setattr(module, "_KNOWN", {})  # as in another process
    read = []
    one = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda name: (read.append(name), one(name))[1])
    assert file_hashes(files, tmp_path / "cache") == [sha256("a"), sha256("b")]
    assert read == []
    # Another content of the same size with the time of the old one.
    before = files[1].stat()
    files[1].write_text("c")
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_hashes(files, tmp_path / "cache") == [sha256("a"), sha256("c")]
    assert read == [str(files[1])]


@pytest.mark.parametrize("content", ["", "[[1]]", "{}", json.dumps([["a", 1, 2, 3, 4, 5, 6]])])
def test_what_was_kept_and_is_damaged_is_made_anew(files, tmp_path, monkeypatch, content):
    monkeypatch.setattr(module, "KEPT_FROM", 2)
    file_hashes(files, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    good = kept.read_text()
    kept.write_text(content)
    monkeypatch.setattr(module, "_KNOWN", {})
    assert file_hashes(files, tmp_path / "cache") == [sha256("a"), sha256("b")]
    assert kept.read_text() == good


def test_a_file_that_is_gone(files, tmp_path):
    files[0].unlink()
    with pytest.raises(UserError, match=r"cannot read .*a: No such file"):
        file_hashes(files, tmp_path / "cache")
