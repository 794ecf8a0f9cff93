"""Tests of glm_jax.config.objective: what options forbid each other."""

import dataclasses

import pytest

from glm_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, from_dict, to_dict
from glm_jax.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_mask_rate": 1.5}, r"objective\.block_mask_rate must be between 0 and 1; got 1\.5"),
        ({"short_sequence_rate": -0.1}, r"objective\.short_sequence_rate must be between 0 and 1"),
        ({"context_mask_ratio": 2.0}, r"objective\.context_mask_ratio must be between 0 and 1"),
        ({"block_mask_id": -1}, r"objective\.block_mask_id must be an id or None; got -1"),
        ({"published_rows": 0}, r"objective\.published_rows must be at least 1; got 0"),
        (
            {"published": True, "published_length": 34},
            r"objective\.published_length must be at least 35; got 34",
        ),
        (
            {"published": True, "span_rate": 0.0, "causal_rate": 1.0},
            r"objective\.causal_rate must be 0 with objective\.published; got 1\.0",
        ),
        (
            {"published": True, "context_mask_ratio": 0.1},
            r"objective\.context_mask_ratio must be 0 with objective\.published",
        ),
        (
            {"masked_lm": True, "block_mask_rate": 0.1},
            r"objective\.block_mask_rate must be 0 with objective\.masked_lm",
        ),
        (
            {"masked_lm": True, "sentinel_id": 100},
            r"objective\.sentinel_id must be None with objective\.masked_lm; got 100",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**options)


@pytest.mark.parametrize("off", [-0.05, -2e-6, 2e-6, 0.05])
def test_rates_sum_to_1_within_a_millionth(off):
    ObjectiveConfig(span_rate=0.5, document_rate=0.5 + 0.4e-6 * (1 if off > 0 else -1))
    with pytest.raises(UserError, match=r"objective\.span_rate, .* must sum to 1; got "):
        ObjectiveConfig(span_rate=0.5, document_rate=0.5 + off)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_mask_id": 100}, r"block_mask_id must be below model\.vocab_size=100; got 100"),
        ({"sentinel_id": 80}, r"sentinel_id=80 needs ids up to 100 .* model\.vocab_size is 100"),
        (
            {"published": True},
            r"published_length=512 needs a data\.sequence_length of 514 .* 664 hold all rows.*32$",
        ),
    ],
)
def test_refuses_what_rows_and_word_table_do_not_hold(options, message):
    with pytest.raises(UserError, match=message):
        Config(
            ModelConfig(vocab_size=100),
            DataConfig(sequence_length=32),
            ObjectiveConfig(**options),
        )


def test_a_run_of_before_these_options_reads_as_without_them():
    values = to_dict(Config())
    old = list(dataclasses.asdict(ObjectiveConfig()))[:17]
    assert old[-1] == "causal_weight"
    values["objective"] = {name: values["objective"][name] for name in old}
    assert from_dict(values) == Config()


def test_positions_that_a_model_must_know():
    assert ObjectiveConfig().positions_needed(128) == 128
    assert ObjectiveConfig(sentinel_id=9000).positions_needed(128) == 129
    published = ObjectiveConfig(published=True, published_length=100)
    assert published.positions_needed(128) == 100
