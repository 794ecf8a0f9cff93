"""Stores of files, built in threads."""

import hashlib
import sys
import time

import numpy as np
import pytest

from glm_jax.config import DataConfig
from glm_jax.data import building
from glm_jax.data.building import build_store, encode_texts, in_threads
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import store_key
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer


def documents(split):
    bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    return [split.tokens[start:end].tolist() for start, end in bounds]


def test_a_store_holds_the_ids_of_the_documents(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it would raise
    texts = [f"text {number} spells [MASK] and 天地" for number in range(700)]
    path = tmp_path / "a.txt"
    path.write_bytes("\n\n".join(texts).encode() + b"\n\nbad \xff\n\nlast")
    data = DataConfig(source=str(path), eval_fraction=0.2)
    build_store(data, tmp_path / "stores" / "one", progress=False)

    store = TokenStore.open(tmp_path / "stores" / "one")
    tokenizer = load_tokenizer("bundled")
    assert (store.vocab_size, store.special) == (tokenizer.vocab_size, tokenizer.special)
    assert np.array_equal(store.sentence_ends, tokenizer.sentence_ends())
    train, held = (documents(store.splits[name]) for name in ("train", "eval"))
    assert sorted(train + held) == sorted(tokenizer.encode_batch([*texts, "last"]))
    assert 100 < len(held) < 180
    # The order is that of the file, however threads finish.
    numbers = [int(tokenizer.decode(ids).split()[1]) for ids in train if len(ids) > 5]
    assert numbers == sorted(numbers)

    assert store.description["files"] == [
        {
            "name": str(path),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    ]
    assert store.description["skipped_lines"] == {"not UTF-8": 1}
    assert store.description["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert store.description["key"] == store_key(data)
    assert f"warning: skipped 1 line: 1 not UTF-8 ({path}:1401)\n" in capsys.readouterr().err


def test_bad_input_writes_nothing(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n\n\xff\n")
    with pytest.raises(UserError, match="empty corpus"):
        build_store(DataConfig(source=str(tmp_path / "*.txt")), tmp_path / "stores" / "one")
    assert not (tmp_path / "stores").exists()


def test_a_file_that_goes_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("text\n\nmore")

    def remove_and_bar(total, progress):
        path.unlink()
        return shown(total, progress)

    shown = building.bar
    monkeypatch.setattr(building, "bar", remove_and_bar)
    data = DataConfig(source=str(path))
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: No such file"):
        build_store(data, tmp_path / "stores" / "one")
    assert list((tmp_path / "stores").iterdir()) == []


def test_documents_that_come_many_times_are_said(tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["the same text"] * 50))
    build_store(DataConfig(source=str(path)), tmp_path / "one", progress=False)
    assert capsys.readouterr().err == (
        "warning: 98.0% of the documents for training repeat an earlier one\n"
        "warning: 100.0% of the held-out documents are in the training split too, so the held-out "
        "loss is that of texts that were trained on\n"
    )
    path.write_text("\n\n".join([f"text {number}" for number in range(50)] + ["text 1"]))
    build_store(DataConfig(source=str(path)), tmp_path / "two", progress=False)
    path.write_text("one document")
    build_store(DataConfig(source=str(path)), tmp_path / "three", progress=False)
    assert capsys.readouterr().err == (
        "warning: the corpus is one document, which is used for training and for evaluation\n"
    )


def test_encode_texts():
    tokenizer = load_tokenizer("bundled")
    ids, sizes = encode_texts(tokenizer, ["the light", "", "天"])
    assert ids.tolist() == tokenizer.encode("the light") + tokenizer.encode("天")
    assert sizes.tolist() == [len(tokenizer.encode(text)) for text in ("the light", "", "天")]
    assert encode_texts(tokenizer, [])[0].tolist() == []


def test_threads_keep_the_order_and_read_little_ahead():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    def slow_first(number):
        time.sleep(0.01 * (number % 3 == 0))
        return number

    results = in_threads(slow_first, items())
    assert next(results) == 0
    assert len(taken) < 50
    assert [0, *results] == list(range(50))
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // number, [1, 0]))
