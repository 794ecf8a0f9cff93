"""Tests of glm_jax.pipeline."""

import numpy as np
import pytest

from glm_jax import pipeline
from glm_jax.config import Config
from glm_jax.config_files import apply_overrides
from glm_jax.data.store import StoreWriter
from glm_jax.interop.tokenizers import load_tokenizer

SIZE = ["data.sequence_length=64", "data.batch_size=4"]


def make_store(directory, **description):
    tokenizer = load_tokenizer("bundled")
    with StoreWriter(
        directory,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description=description,
    ) as writer:
        draws = np.random.default_rng(0)
        for split in pipeline.SPLITS:
            writer.add(split, [draws.integers(300, 8000, 50) for _ in range(20)])
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


def test_a_model_too_small_for_the_vocabulary_is_refused(tmp_path):
    overrides = [*make_store(tmp_path / "store"), "model.vocab_size=100"]
    with pytest.raises(ValueError, match="at least the tokenizer's 8192; got 100"):
        pipeline.open_stores(apply_overrides(Config(), overrides))


def test_a_store_of_another_tokenizer_is_refused(tmp_path):
    overrides = make_store(tmp_path / "store", tokenizer="other", tokenizer_fingerprint="0" * 64)
    with pytest.raises(ValueError, match=r"made with another tokenizer \('other'\)"):
        pipeline.open_stores(apply_overrides(Config(), overrides))


@pytest.mark.tensorflow
def test_a_missing_store_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("A line of text, and another.\n\n" * 40, encoding="utf-8")
    config = apply_overrides(Config(), [f"data.source={tmp_path}/*.txt", *SIZE])
    batch = next(pipeline.batches(config))
    assert batch.shape == (4, 64)
    assert len(list((tmp_path / "cache" / "stores").iterdir())) == 1


def test_a_missing_corpus_is_one_sentence(tmp_path):
    config = apply_overrides(Config(), [f"data.source={tmp_path}/none/*.txt"])
    with pytest.raises(ValueError, match=r"no file matches data.source='.*none/\*.txt'"):
        pipeline.batches(config)
