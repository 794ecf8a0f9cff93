"""The preview of a small corpus of one's own, as a user sees it."""

import sys

import pytest

from glm_jax import preview
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer

CONFIG = """
from glm_jax.config import Config, DataConfig, ObjectiveConfig

def get_config():
    return Config(
        data=DataConfig(store={store!r}, sequence_length={length}, batch_size=4),
        objective=ObjectiveConfig(span_rate=0.5, sentence_rate=0.25, document_rate=0.25),
    )
"""
TEXT = "In the beginning was the word. The light was good, and all was well. Then came the night. "


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    tokenizer = load_tokenizer("bundled")
    store = tmp_path / "store"
    with StoreWriter(
        store,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description={},
    ) as writer:
        for split in ("train", "eval"):
            writer.add(split, [tokenizer.encode(TEXT * n) for n in range(1, 9)])

    def run(*arguments, length=64):
        config = tmp_path / "config.py"
        config.write_text(CONFIG.format(store=str(store), length=length))
        monkeypatch.setattr(sys, "argv", ["preview", "--config", str(config), *arguments])
        preview.main()
        return capsys.readouterr().out

    return run


def test_every_objective_is_shown(run):
    out = run("--num_examples", "2")
    heads = [line.split()[1] for line in out.split("\n") if line.startswith("==")]
    assert sorted(heads) == ["document:"] * 2 + ["sentence:"] * 2 + ["span:"] * 2
    for word in ("[MASK]", "[sMASK]", "[gMASK]", "<|starto..", "<|endofpiece|>", "[CLS]"):
        assert word in out
    assert "rows in which spans did not fit" in out.split("\n")[-2]
    assert "the mask, 2 by 2 slots per sign" in out


def test_it_begins_with_a_legend_and_a_small_english_row(run):
    out = run()
    legend, example = out.partition("Rows of your corpus:")[0].split("An example, ")
    for word in ("token", "target", "pos", "block", "sees", "Part A", "Part B", "␣"):
        assert word in legend
    assert "· is nothing" in legend
    lines = example.split("\n")
    assert lines[0].startswith("span of the text 'The light was good")
    table = example[example.index("token ") :].strip().split("\n")
    assert table[1].split()[:4] == ["[CLS]", "·", "0", "0"]
    assert any(line.startswith("␣") for line in table)
    grid = [line[36:].split() for line in table[1:]]
    assert all(len(line) == len(grid) <= 32 for line in grid)


def test_a_short_row_has_its_mask_beside_the_table(run):
    out = run(length=32)
    assert "x x x" in out
    assert "slots per sign" not in out
    rows = out.partition("Rows of your corpus:")[2]
    table = next(part for part in rows.split("\n\n") if part.startswith("token"))
    grid = [line[36:].split() for line in table.split("\n")[1:]]
    assert all(len(line) == len(grid) <= 32 for line in grid)
    # Every slot sees itself or, in part A, all of its part A.
    assert all(line[i] == "x" for i, line in enumerate(grid))


def test_only_the_objectives_of_the_config(run):
    out = run(
        "--set", "objective.span_rate=1.0",
        "--set", "objective.sentence_rate=0.0",
        "--set", "objective.document_rate=0.0",
    )  # fmt: skip
    assert [line.split()[1] for line in out.split("\n") if line.startswith("==")] == ["span:"]


@pytest.mark.parametrize(("flag", "value"), [("--num_examples", "0"), ("--places", "3")])
def test_numbers_that_make_no_sense(run, flag, value):
    with pytest.raises(UserError, match=f"{flag} must be at least"):
        run(flag, value)


def test_hidden_tokens_are_shown_by_their_number(run):
    options = [f"objective.published.block_mask_{x}" for x in ("id=7168", "rate=1")]
    out = run(*(part for x in (*options, "model.vocab_size=7296") for part in ("--set", x)))
    assert "<7168>" in out


def test_published_rows(run):
    options = ["objective.published.loader=true", "objective.published.row_length=40"]
    out = run(*(part for option in options for part in ("--set", option)))
    assert {line.split()[1] for line in out.split("\n") if line.startswith("==")} == {
        "span:",
        "sentence:",
        "document:",
    }
