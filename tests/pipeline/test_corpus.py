"""The token stores of a config: built where they are missing, opened, checked."""

import dataclasses
import sys

import pytest

from glm_jax.config import Config
from glm_jax.config.files import apply_overrides
from glm_jax.errors import UserError
from glm_jax.pipeline import corpus
from glm_jax.pipeline.batches import batches
from glm_jax.pipeline.corpus import Corpus
from glm_jax.tokenizers.tokenizer import load_tokenizer
from tests.pipeline.small_store import SIZE, make_store


def test_a_model_too_small_for_the_vocabulary_is_refused(tmp_path):
    overrides = [*make_store(tmp_path / "store"), "model.vocab_size=100"]
    with pytest.raises(ValueError, match="at least the tokenizer's 7168; got 100"):
        Corpus(apply_overrides(Config(), overrides)).stores()


def test_a_store_of_another_tokenizer_is_refused(tmp_path):
    overrides = make_store(tmp_path / "store", tokenizer="other", tokenizer_fingerprint="0" * 64)
    with pytest.raises(ValueError, match=r"made with another tokenizer \('other'\)"):
        Corpus(apply_overrides(Config(), overrides)).stores()


def test_a_store_of_other_special_ids_is_refused(tmp_path):
    special = dataclasses.replace(load_tokenizer("bundled").special, mask=300)
    overrides = make_store(tmp_path / "store", special=special)
    with pytest.raises(UserError, match="has other special ids, or another number of ids, than"):
        Corpus(apply_overrides(Config(), overrides)).stores()


def test_a_store_of_other_text_than_the_config_says(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n\n".join(f"A line of text, {n}." for n in range(40)))
    (tmp_path / "b.txt").write_text("\n\n".join(f"Another, {n}." for n in range(40)))
    store = f"data.store={tmp_path / 'store'}"

    def opened(*overrides):
        return Corpus(apply_overrides(Config(), [store, *SIZE, *overrides])).stores()

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
    assert "'bundled' is ignored" in capsys.readouterr().err


def test_a_missing_store_is_built_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it would raise
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("A line of text, and another.\n\n" * 40, encoding="utf-8")
    config = apply_overrides(Config(), [f"data.source={tmp_path}/*.txt", *SIZE])
    batch = next(batches(config))
    assert batch.shape == (4, 64)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1


def test_a_store_that_another_process_builds_meanwhile_is_used(tmp_path, monkeypatch):
    """Two runs that start together both find it missing; one of them finishes first."""
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "some.txt").write_text("The light was good.\n\n" * 300)
    changes = [f"data.source={tmp_path / 'some.txt'}", "data.eval_fraction=0.5", *SIZE]
    config = apply_overrides(Config(), changes)
    real, found = corpus.build_store, []

    def build(data, directory):
        real(data, directory)  # the other one's
        found.append(directory)
        real(data, directory)

    monkeypatch.setattr(corpus, "build_store", build)
    stream = batches(config)
    assert next(stream).shape == (4, 64)
    stream.close()
    assert len(found) == 1

    def fail(data, directory):
        raise UserError("the disk is full")

    monkeypatch.setattr(corpus, "build_store", fail)
    with pytest.raises(UserError, match="the disk is full"):
        batches(apply_overrides(config, ["data.eval_fraction=0.25"]))


def test_a_missing_corpus_is_one_sentence(tmp_path):
    config = apply_overrides(Config(), [f"data.source={tmp_path}/none/*.txt"])
    with pytest.raises(ValueError, match=r"no file matches data.source='.*none/\*.txt'"):
        batches(config)
