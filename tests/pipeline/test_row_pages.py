"""Rows as text; whole pages, as a user sees them, are in tests/test_preview.py."""

import numpy as np

from glm_jax import corruption
from glm_jax.batch import OBJECTIVES, Batch
from glm_jax.config import Config, DataConfig, ExamplesConfig, PreferencesConfig, TrainConfig
from glm_jax.data.examples.example import row_of
from glm_jax.data.examples.prompts import PromptMaker
from glm_jax.pipeline.row_pages import (
    LEGEND_OF_EXAMPLES,
    describe,
    introduction,
    names_of,
    summary,
)
from glm_jax.tokenizers.tokenizer import load_tokenizer

STATISTICS = {"rows": 4, "source_tokens": 200, "places_used": 240}


def row_of_three_words():
    """ "the word was", its word "word" cut out: [CLS] the [MASK] was, sop word -> word eop."""
    tokenizer = load_tokenizer("bundled")
    special = tokenizer.special
    ids = [special.cls, *tokenizer.encode("the word was")]
    assert len(ids) == 4
    fields = corruption.assemble(
        ids, [(2, 3)], [0], mask_id=special.mask, start_id=special.start, end_id=special.end
    )
    objective = np.where(fields["loss_weights"] > 0, OBJECTIVES["span"], 0).astype(np.int32)
    return Batch(**{**fields, "objective": objective}), tokenizer


def test_a_row_is_named_by_its_objective_and_counts_its_slots_and_targets():
    row, tokenizer = row_of_three_words()
    page = describe("span", row, tokenizer, places=16)
    head, *parts = page.split("\n\n")
    assert head == "== span: 6 of 6 slots used, segments: 1, targets: 2"
    drawn = ["".join(line.split()[-6:]) for line in parts[-1].splitlines()[-6:]]
    assert drawn == ["xxxx.."] * 4 + ["xxxxx.", "xxxxxx"]


def test_without_texts_there_is_no_example_of_an_objective():
    config = Config(
        data=DataConfig(source="my/*.jsonl"), examples=ExamplesConfig(format="messages")
    )
    assert introduction(config, load_tokenizer("bundled")) == LEGEND_OF_EXAMPLES


def test_the_answers_of_a_pair_have_names():
    pairs = Config(
        data=DataConfig(source="my/*.jsonl"),
        examples=ExamplesConfig(format="preferences"),
        train=TrainConfig(loss="dpo"),
        preferences=PreferencesConfig(reference_free=True),
    )
    assert names_of(pairs) == ("chosen", "rejected")
    assert names_of(Config()) == ()


def test_what_stands_behind_a_prompt_is_no_target():
    tokenizer = load_tokenizer("bundled")
    asked = {"prompt": "the word was [MASK]."}
    (example,) = PromptMaker(ExamplesConfig(format="prompts"), tokenizer, True).examples(asked)
    fields = row_of(example, 16, tokenizer.special.pad)
    page = describe("answer", Batch(**fields), tokenizer, places=16, names=("prompt",))
    assert "targets: 0\n\nprompt: 8 slots, 0 learnt\n" in page
    assert page.count("<pad>") == 0
    assert "targets: 1" in describe("answer", Batch(**fields), tokenizer, places=16)


def test_what_is_said_of_rows_of_texts():
    counts = {"masked_tokens": 30, "rows_fewer_spans": 1, "sentence_rows_without_sentence": 2}
    assert summary({**STATISTICS, **counts}, 64) == (
        "4 rows: 93.8% of the slots used, 50 tokens of text per row, 15.0% of them in spans; 1 "
        "rows in which spans did not fit, 2 sentence rows with a text that has none"
    )


def test_what_is_said_of_rows_of_examples():
    assert summary({**STATISTICS, "examples": 10, "targets": 50}, 64) == (
        "4 rows: 93.8% of the slots used, 2.5 examples per row, 25.0% of the tokens have a target"
    )
