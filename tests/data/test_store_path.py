import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glm_jax.buckets import BucketPath
from glm_jax.config import DataConfig
from glm_jax.data import reading
from glm_jax.data.store import StoreWriter, TokenStore
from glm_jax.data.store_path import (
    cache_directory,
    described_files,
    source_files,
    store_key,
    store_name,
)
from glm_jax.errors import UserError
from tests.bucket_server import flip
from tests.tiny_run import SPECIAL


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my").mkdir()
    for name in ("b.txt", "a.txt", "c.jsonl"):
        (tmp_path / "my" / name).write_text(name)
    return DataConfig(source=str(tmp_path / "my" / "*"))


def test_source_files(data, tmp_path):
    assert [path.name for path in source_files(data)] == ["a.txt", "b.txt", "c.jsonl"]
    nested = DataConfig(source=str(tmp_path / "**" / "*.jsonl"))
    assert [path.name for path in source_files(nested)] == ["c.jsonl"]
    (tmp_path / "my [1].txt").write_text("x")
    assert len(source_files(DataConfig(source=str(tmp_path / "my [1].txt")))) == 1
    assert [path.name for path in source_files(DataConfig())] == ["corpus.en.xz", "corpus.zh.xz"]


def test_source_files_errors(data, tmp_path):
    with pytest.raises(UserError, match=r"no file matches data\.source='.*/my'.*a directory"):
        source_files(DataConfig(source=str(tmp_path / "my")))
    with pytest.raises(UserError, match=r"no file matches data\.source='nowhere/\*\.txt'; allowed"):
        source_files(DataConfig(source="nowhere/*.txt"))
    (tmp_path / "my" / "d.pdf").write_text("x")
    with pytest.raises(UserError, match=r"end in \.txt, .*tfrecord; got '.*d\.pdf'"):
        source_files(data)


def test_name_changes_with_all_that_decides_the_content(data, tmp_path):
    names = [store_name(data)]
    assert names[0].parent == tmp_path / "cache" / "stores"
    assert store_name(data) == names[0]
    names.append(store_name(dataclasses.replace(data, text_field="body")))
    names.append(store_name(dataclasses.replace(data, eval_fraction=0.5)))
    file = tmp_path / "my" / "a.txt"
    os.utime(file, ns=(0, 1))
    assert store_name(data) == names[0]
    file.write_text("a.tXt")  # of the same size and time
    os.utime(file, ns=(0, 1))
    names.append(store_name(data))
    file.rename(tmp_path / "my" / "aa.txt")
    assert store_name(data) == names[-1]
    file = tmp_path / "my" / "c.jsonl"
    file.rename(tmp_path / "my" / "c.txt")  # read in another way
    names.append(store_name(data))
    names.append(store_name(dataclasses.replace(data, tokenizer=_other_tokenizer(tmp_path))))
    assert len(set(names)) == len(names)


def _other_tokenizer(tmp_path):
    from glm_jax.tokenizers.tokenizer import tokenizer_file

    path = tmp_path / "other.model"
    # The same message with an empty field 3 (normaliser options) behind it.
    path.write_bytes(tokenizer_file("bundled").read_bytes() + b"\x1a\x00")
    return str(path)


def test_name_does_not_change_with_the_rest(data):
    rest = dataclasses.replace(data, sequence_length=64, batch_size=3)
    assert store_key(rest) == store_key(data)


def test_the_key_does_not_change_with_the_directory(data, tmp_path):
    shutil.copytree(tmp_path / "my", tmp_path / "elsewhere")
    other = DataConfig(source=str(tmp_path / "elsewhere" / "*"))
    assert store_key(other) == store_key(data)


def test_described_files(data, tmp_path):
    names = ("a.txt", "b.txt", "c.jsonl")
    assert described_files(data) == [
        {
            "name": str(tmp_path / "my" / name),
            "bytes": len(name),
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        for name in names
    ]


def test_a_given_store_needs_no_text():
    data = DataConfig(source="nowhere/*.txt", store="some/where")
    assert store_name(data) == Path("some/where")


def test_cache_directory(monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_directory() == Path("/a")
    monkeypatch.delenv("GLM_JAX_CACHE")
    assert cache_directory() == Path("/b/glm_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_directory() == Path.home() / ".cache" / "glm_jax"


def test_naming_a_store_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys; from glm_jax.config import DataConfig; "
        "from glm_jax.data.store_path import store_name; store_name(DataConfig()); "
        "sys.exit(bool({'jax', 'tensorflow', 'seqio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def make_store(directory, tokens=(10, 11, 12)):
    with StoreWriter(
        directory,
        vocab_size=32,
        special=SPECIAL,
        sentence_ends=np.zeros(32, bool),
        description={},
    ) as writer:
        writer.add("train", [tokens])


@pytest.fixture
def store_in_bucket(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    make_store(tmp_path / "wiki")
    for file in (tmp_path / "wiki").iterdir():
        (bucket / "wiki" / file.name).upload(file)
    return bucket / "wiki"


@pytest.mark.processes
def test_a_store_in_a_bucket_is_copied_once(store_in_bucket, tmp_path, monkeypatch):
    copy = store_name(DataConfig(store=str(store_in_bucket)))
    assert copy.is_relative_to(tmp_path / "cache")
    found, made = TokenStore.open(copy), TokenStore.open(tmp_path / "wiki")
    assert found.fingerprint == made.fingerprint
    assert found.splits["train"].tokens.tolist() == [10, 11, 12]
    monkeypatch.setattr(BucketPath, "download", None)  # would raise
    assert store_name(DataConfig(store=str(store_in_bucket))) == copy


@pytest.mark.processes
@pytest.mark.parametrize("background", [1 << 26, 0])
def test_a_flipped_bit_in_it_is_refused(store_in_bucket, tmp_path, monkeypatch, background):
    """By the store's own checksum: the bucket's is that of what lies there. Read at once, or as a
    large one is."""
    monkeypatch.setattr(reading, "IN_BACKGROUND", background)
    flip(store_in_bucket / "train.tokens")
    said = rf"^the token store '{store_in_bucket}' is damaged \(train.tokens .*; copy a whole one"
    with pytest.raises(UserError, match=said):
        store_name(DataConfig(store=str(store_in_bucket)))
    assert list((tmp_path / "cache/fetched").iterdir()) == []


@pytest.mark.processes
def test_what_is_no_store_is_refused(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (bucket / "wiki/notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"no token store at 'gs://.*/wiki': store.json is missing"):
        store_name(DataConfig(store=str(bucket / "wiki")))
    with pytest.raises(UserError, match=r"nothing lies in 'gs://.*/none'"):
        store_name(DataConfig(store=str(bucket / "none")))


@pytest.mark.processes
def test_a_mixture_in_a_bucket_is_copied_with_all_its_stores(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (bucket / "mixed/mixture.json").write_text('{"rates": {"a": 1, "b": 2}}')
    for name in "ab":
        make_store(tmp_path / name)
        for file in (tmp_path / name).iterdir():
            (bucket / "mixed" / name / file.name).upload(file)
    copy = store_name(DataConfig(store=str(bucket / "mixed")))
    assert {file.parent.name for file in copy.glob("*/store.json")} == {"a", "b"}
    flip(bucket / "mixed/b/train.tokens")
    with pytest.raises(UserError, match=rf"'{bucket}/mixed/b' is damaged"):
        store_name(DataConfig(store=str(bucket / "mixed")))
