"""Tests of glm_jax.config.published: what its options forbid each other, and what they need."""

import pytest

from glm_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, PublishedOptions
from glm_jax.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_mask_rate": 1.5}, r"block_mask_rate must be between 0 and 1; got 1\.5"),
        ({"short_sequence_rate": -0.1}, r"short_sequence_rate must be between 0 and 1"),
        ({"context_mask_ratio": 2.0}, r"context_mask_ratio must be between 0 and 1"),
        ({"block_mask_id": -1}, r"block_mask_id must be an id or None; got -1"),
        ({"micro_batch_rows": 0}, r"micro_batch_rows must be at least 1; got 0"),
        ({"row_length": 0}, r"row_length must be at least 1; got 0"),
        ({"loader": 1}, r"loader must be True or False; got 1"),
        (
            {"loader": True, "row_length": 34},
            r"row_length must be at least 35 with objective\.published\.loader; got 34",
        ),
        (
            {"loader": True, "context_mask_ratio": 0.1},
            r"context_mask_ratio must be 0 with objective\.published\.loader; got 0\.1",
        ),
        (
            {"masked_lm": True, "block_mask_rate": 0.1},
            r"block_mask_rate must be 0 with objective\.published\.masked_lm; got 0\.1",
        ),
        (
            {"masked_lm": True, "sentinel_id": 100},
            r"sentinel_id must be None with objective\.published\.masked_lm; got 100",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=rf"^objective\.published\.{message}"):
        PublishedOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_mask_id": 100}, r"block_mask_id must be below model\.vocab_size=100; got 100"),
        ({"sentinel_id": 80}, r"sentinel_id=80 needs ids up to 100 .* model\.vocab_size is 100"),
        (
            {"loader": True},
            r"row_length=512 needs a data\.sequence_length of 514 .* 664 hold all rows.*32$",
        ),
    ],
)
def test_refuses_what_rows_and_token_embedding_do_not_hold(options, message):
    with pytest.raises(UserError, match=rf"^objective\.published\.{message}"):
        Config(
            ModelConfig(vocab_size=100),
            DataConfig(sequence_length=32),
            ObjectiveConfig(published=PublishedOptions(**options)),
        )


def test_positions_that_a_model_must_know():
    assert PublishedOptions().positions_needed(128) == 128
    assert PublishedOptions(sentinel_id=9000).positions_needed(128) == 129
    assert PublishedOptions(loader=True, row_length=100).positions_needed(128) == 100
