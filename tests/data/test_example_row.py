"""The example of `glm_jax.preview` is a row like all others, and small."""

import numpy as np
import pytest

from glm_jax.config import Config, ObjectiveConfig, PublishedOptions
from glm_jax.data.example_row import example_row
from glm_jax.data.picture import objective_of, segments, slots_used
from glm_jax.tokenizers.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("bundled")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, "span"),
        ({"span_rate": 0.2, "document_rate": 0.8}, "span"),
        ({"span_rate": 0.0, "sentence_rate": 1.0}, "sentence"),
        ({"span_rate": 0.0, "document_rate": 1.0}, "document"),
        ({"span_rate": 0.0, "causal_rate": 1.0}, "causal"),
        ({"published": PublishedOptions(loader=True, row_length=64)}, "span"),
        ({"published": PublishedOptions(masked_lm=True)}, "span"),
    ],
)
def test_the_first_objective_of_the_config(rates, expected):
    row = example_row(Config(objective=ObjectiveConfig(**rates)), TOKENIZER)
    assert objective_of(row) == expected
    assert len(row.tokens) == slots_used(row) <= 32
    assert len(segments(row)) == 1


def test_several_spans_and_the_whole_text():
    row = example_row(Config(), TOKENIZER)
    assert len(segments(row)[0].spans) >= 2
    part_a = row.tokens[: segments(row)[0].part_b]
    shown = TOKENIZER.decode([id_ for id_ in part_a if id_ not in TOKENIZER.special.masks])
    assert "light" in shown or "night" in shown
    assert np.all(row.attend_start == 0)
