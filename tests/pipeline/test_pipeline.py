"""Tests of glm_jax.pipeline."""

import dataclasses
import json
import sys
import threading

import numpy as np
import pytest

from glm_jax import pipeline
from glm_jax.config import Config
from glm_jax.config.files import apply_overrides
from glm_jax.data import reading
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer

SIZE = ["data.sequence_length=64", "data.batch_size=4"]


def make_store(directory, special=None, **description):
    tokenizer = load_tokenizer("bundled")
    with StoreWriter(
        directory,
        vocab_size=tokenizer.vocab_size,
        special=special or tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description=description,
    ) as writer:
        draws = np.random.default_rng(0)
        for split in pipeline.SPLITS:
            writer.add(split, [draws.integers(300, tokenizer.vocab_size, 50) for _ in range(20)])
    return [f"data.store={directory}", *SIZE]


def test_a_store_that_is_there_is_used(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    batch = next(pipeline.batches(config))
    assert batch.shape == (4, 64)
    assert batch.tokens.dtype == np.int32


def test_splits_and_hosts_are_checked(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'eval'\]; got 'test'"):
        pipeline.batches(config, split="test")
    with pytest.raises(ValueError, match="4 rows for 3 hosts"):
        pipeline.batches(config, shard_index=0, num_shards=3)


def test_eval_rows_are_the_same_each_time(tmp_path):
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    first = next(pipeline.batches(config, split="eval"))
    again = next(pipeline.batches(config, split="eval"))
    np.testing.assert_array_equal(first.tokens, again.tokens)


def test_published_rows_keep_the_order_of_their_numbers(tmp_path):
    options = ["objective.published=True", "objective.published_length=50"]
    config = apply_overrides(Config(), [*make_store(tmp_path / "store"), *options])
    stream = pipeline.batches(config)
    numbers = np.arange(12)
    expected, _ = pipeline.rows(config).build(0 * numbers, numbers)
    assert len(np.unique(expected.tokens, axis=0)) == 12
    found = np.concatenate([next(stream).tokens for _ in range(3)])
    np.testing.assert_array_equal(found, expected.tokens)
    stream.close()


def test_a_model_too_small_for_the_vocabulary_is_refused(tmp_path):
    overrides = [*make_store(tmp_path / "store"), "model.vocab_size=100"]
    with pytest.raises(ValueError, match="at least the tokenizer's 7168; got 100"):
        pipeline.open_stores(apply_overrides(Config(), overrides))


def test_a_store_of_another_tokenizer_is_refused(tmp_path):
    overrides = make_store(tmp_path / "store", tokenizer="other", tokenizer_fingerprint="0" * 64)
    with pytest.raises(ValueError, match=r"made with another tokenizer \('other'\)"):
        pipeline.open_stores(apply_overrides(Config(), overrides))


def test_a_store_of_other_special_ids_is_refused(tmp_path):
    special = dataclasses.replace(load_tokenizer("bundled").special, mask=300)
    overrides = make_store(tmp_path / "store", special=special)
    with pytest.raises(UserError, match="has other special ids, or another number of ids, than"):
        pipeline.open_stores(apply_overrides(Config(), overrides))


def test_a_store_of_other_text_than_the_config_says(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n\n".join(f"A line of text, {n}." for n in range(40)))
    (tmp_path / "b.txt").write_text("\n\n".join(f"Another, {n}." for n in range(40)))
    store = f"data.store={tmp_path / 'store'}"

    def opened(*overrides):
        return pipeline.open_stores(apply_overrides(Config(), [store, *SIZE, *overrides]))

    a = f"data.source={tmp_path / 'a.txt'}"
    opened(a)
    opened(a)
    for override, said in (
        (f"data.source={tmp_path / 'b.txt'}", r"made from other text than .*'.*b\.txt' is new"),
        ("data.source=none.txt", r"made from data\.source='.*a\.txt', not 'none\.txt'"),
        ("data.eval_fraction=0.5", r"made from data\.eval_fraction=0\.02, not 0\.5"),
    ):
        with pytest.raises(UserError, match=f"the token store '.*/store' was {said}"):
            opened(a, override)
    # On a host without the text the store is enough, by its source's name or alone.
    (tmp_path / "a.txt").unlink()
    opened(a)
    assert capsys.readouterr().err == ""
    opened()
    assert "'bundled' is not looked at" in capsys.readouterr().err


def test_damage_that_is_found_in_the_background_ends_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "IN_BACKGROUND", 1)
    held, read = threading.Event(), reading.Reading._read
    monkeypatch.setattr(reading.Reading, "_read", lambda self: (held.wait(), read(self)))
    config = apply_overrides(Config(), make_store(tmp_path / "store"))
    tokens = tmp_path / "store" / "train.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2] + b"\x2d\x01")
    stream = pipeline.batches(config)
    next(stream)
    held.set()
    for _, store in stream._stores.values():
        store.reading.wait()
    with pytest.raises(UserError, match=r"is damaged \(train\.tokens is not what was written"):
        next(stream)
    stream.close()


def test_streams_say_what_they_are_made_from(tmp_path):
    overrides = make_store(tmp_path / "store", source="bundled")
    stream = pipeline.batches(apply_overrides(Config(), overrides))
    assert stream.data[""]["made_from"] == {"source": "bundled"}
    fingerprint = json.loads((tmp_path / "store" / "store.json").read_text())["fingerprint"]
    assert stream.data[""]["fingerprint"] == fingerprint
    stream.close()
    for name in ("a", "b"):
        make_store(tmp_path / name)
    mixture = f"data.mixture=a={tmp_path}/x.txt@3, b={tmp_path}/x.txt@1"
    mixed = pipeline.batches(apply_overrides(Config(), [f"data.store={tmp_path}", mixture, *SIZE]))
    assert [(name, one["rate"]) for name, one in mixed.data.items()] == [("a", 3.0), ("b", 1.0)]
    mixed.close()


def test_a_missing_store_is_built_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it would raise
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("A line of text, and another.\n\n" * 40, encoding="utf-8")
    config = apply_overrides(Config(), [f"data.source={tmp_path}/*.txt", *SIZE])
    batch = next(pipeline.batches(config))
    assert batch.shape == (4, 64)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1


def test_a_store_that_another_process_builds_meanwhile_is_used(tmp_path, monkeypatch):
    """Two runs that start together both find it missing; one of them finishes first."""
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "some.txt").write_text("The light was good.\n\n" * 300)
    changes = [f"data.source={tmp_path / 'some.txt'}", "data.eval_fraction=0.5", *SIZE]
    config = apply_overrides(Config(), changes)
    real, found = pipeline.build_store, []

    def build(data, directory):
        real(data, directory)  # the other one's
        found.append(directory)
        real(data, directory)

    monkeypatch.setattr(pipeline, "build_store", build)
    stream = pipeline.batches(config)
    assert next(stream).shape == (4, 64)
    stream.close()
    assert len(found) == 1

    def fail(data, directory):
        raise UserError("the disk is full")

    monkeypatch.setattr(pipeline, "build_store", fail)
    with pytest.raises(UserError, match="the disk is full"):
        pipeline.batches(apply_overrides(config, ["data.eval_fraction=0.25"]))


def test_a_missing_corpus_is_one_sentence(tmp_path):
    config = apply_overrides(Config(), [f"data.source={tmp_path}/none/*.txt"])
    with pytest.raises(ValueError, match=r"no file matches data.source='.*none/\*.txt'"):
        pipeline.batches(config)


def test_a_mixture_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    for name, line in (("wiki", "The light was good."), ("books", "天地玄黄，宇宙洪荒。")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{line} {n}" for n in range(60)))
    files = {name: tmp_path / f"{name}.txt" for name in ("wiki", "books")}
    mixture = f"data.mixture=wiki={files['wiki']}@3, books={files['books']}@1"
    config = apply_overrides(Config(), [mixture, *SIZE])
    stream = pipeline.batches(config)
    whole = [next(stream) for _ in range(4)]
    stream.close()
    counted = stream.statistics
    assert (counted["rows/wiki"], counted["rows/books"], counted["rows"]) == (12, 4, 16)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 2
    # Each source's rows are its own: Chinese characters only in those of the books.
    tokenizer = load_tokenizer("bundled")
    chinese = ["天" in tokenizer.decode(row) for batch in whole for row in batch.tokens.tolist()]
    assert sum(chinese) == 4
    hosts = [pipeline.batches(config, shard_index=host, num_shards=2) for host in range(2)]
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
    alone = pipeline.rows(apply_overrides(Config(), [two.partition(",")[0], *base]))
    mixed = pipeline.rows(apply_overrides(Config(), [two, *base]))
    epochs, rows = np.zeros(4, int), np.arange(4)
    first, second = (builder.build(epochs, rows)[0] for builder in mixed.builders)
    same = alone.builders[0].build(epochs, rows)[0]
    np.testing.assert_array_equal(first.tokens, same.tokens)
    # Both stores hold the same text; their draws differ.
    assert (first.tokens != second.tokens).any()
