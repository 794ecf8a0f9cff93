"""From a config to Batches."""

import json
import threading

import numpy as np
import pytest

from glm_jax.config import Config
from glm_jax.config.files import apply_overrides
from glm_jax.data import reading
from glm_jax.errors import UserError
from glm_jax.pipeline.batches import batches, source
from glm_jax.tokenizers.tokenizer import load_tokenizer
from tests.pipeline.small_store import SIZE, make_store


def test_a_store_that_is_there_is_used(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    batch = next(batches(config))
    assert batch.shape == (4, 64)
    assert batch.tokens.dtype == np.int32


def test_splits_and_hosts_are_checked(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'eval'\]; got 'test'"):
        batches(config, split="test")
    with pytest.raises(ValueError, match="4 rows for 3 hosts"):
        batches(config, shard_index=0, num_shards=3)


def test_eval_rows_are_the_same_each_time(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    first = next(batches(config, split="eval"))
    again = next(batches(config, split="eval"))
    np.testing.assert_array_equal(first.tokens, again.tokens)


def test_published_rows_keep_the_order_of_their_numbers(tmp_path):
    options = ["objective.published.loader=True", "objective.published.row_length=50"]
    config = apply_overrides(Config(), [*make_store(tmp_path / "store"), *options])
    stream = batches(config)
    numbers = np.arange(12)
    expected, _ = source(config).builders[0].build(0 * numbers, numbers)
    assert len(np.unique(expected.tokens, axis=0)) == 12
    found = np.concatenate([next(stream).tokens for _ in range(3)])
    np.testing.assert_array_equal(found, expected.tokens)
    stream.close()


def test_damage_that_is_found_in_the_background_ends_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "IN_BACKGROUND", 1)
    held, read = threading.Event(), reading.Reading._read
    monkeypatch.setattr(reading.Reading, "_read", lambda self: (held.wait(), read(self)))
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    tokens = tmp_path / "store" / "train.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\x2d\x01")
    stream = batches(config)
    next(stream)
    held.set()
    for _, store in stream._stores.values():
        store.reading.wait()
    with pytest.raises(UserError, match=r"is damaged \(train\.tokens is not what was written"):
        next(stream)
    stream.close()


def test_streams_say_what_they_are_made_from(tmp_path):
    overrides = make_store(tmp_path / "store", source="bundled")
    stream = batches(apply_overrides(Config(), overrides))
    assert stream.data[""]["made_from"] == {"source": "bundled"}
    fingerprint = json.loads((tmp_path / "store" / "store.json").read_text())["fingerprint"]
    assert stream.data[""]["fingerprint"] == fingerprint
    stream.close()
    for name in ("a", "b"):
        make_store(tmp_path / name)
    mixture = f"data.mixture=a={tmp_path}/x.txt@3, b={tmp_path}/x.txt@1"
    mixed = batches(apply_overrides(Config(), [f"data.store={tmp_path}", mixture, *SIZE]))
    assert [(name, one["rate"]) for name, one in mixed.data.items()] == [("a", 3.0), ("b", 1.0)]
    mixed.close()


def test_a_mixture_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    for name, line in (("wiki", "The light was good."), ("books", "天地玄黄，宇宙洪荒。")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{line} {n}" for n in range(60)))
    files = {name: tmp_path / f"{name}.txt" for name in ("wiki", "books")}
    mixture = f"data.mixture=wiki={files['wiki']}@3, books={files['books']}@1"
    config = apply_overrides(Config(), [mixture, *SIZE])
    stream = batches(config)
    whole = [next(stream) for _ in range(4)]
    stream.close()
    counted = stream.statistics
    assert (counted["rows/wiki"], counted["rows/books"], counted["rows"]) == (12, 4, 16)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 2
    # Each source's rows are its own: Chinese characters only in those of the books.
    tokenizer = load_tokenizer("bundled")
    chinese = ["天" in tokenizer.decode(row) for batch in whole for row in batch.tokens.tolist()]
    assert sum(chinese) == 4
    hosts = [batches(config, shard_index=host, num_shards=2) for host in range(2)]
    joined = np.concatenate([next(host).tokens for host in hosts])
    np.testing.assert_array_equal(joined, whole[0].tokens)
    for host in hosts:
        host.close()


def test_the_rows_of_a_source_do_not_depend_on_the_other(tmp_path):
    for name in ("a", "b"):
        make_store(tmp_path / name)
    base = ["data.store=" + str(tmp_path), *SIZE]
    (tmp_path / "x.txt").write_text("x")
    two = f"data.mixture=a={tmp_path}/x.txt@1, b={tmp_path}/x.txt@1"
    alone = source(apply_overrides(Config(), [two.partition(",")[0], *base]))
    mixed = source(apply_overrides(Config(), [two, *base]))
    epochs, rows = np.zeros(4, int), np.arange(4)
    first, second = (builder.build(epochs, rows)[0] for builder in mixed.builders)
    same = alone.builders[0].build(epochs, rows)[0]
    np.testing.assert_array_equal(first.tokens, same.tokens)
    # Both stores hold the same text; their draws differ.
    assert (first.tokens != second.tokens).any()
