"""The model that the package brings: whole, small, and as its card says."""

import re
from pathlib import Path

import pytest

import glm_jax
from glm_jax.config.files import load_config
from glm_jax.evaluation.tasks import TASKS
from glm_jax.models.params import count_params

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "glm_jax" / "bundled" / "model"


@pytest.fixture(scope="module")
def lm():
    return glm_jax.load("bundled")


@pytest.fixture(scope="module")
def card():
    return (MODEL / "README.md").read_text(encoding="utf-8")


def test_it_is_the_model_of_its_config(lm, card):
    config = load_config(ROOT / "configs" / "bundled.py").model
    for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "max_positions"):
        assert getattr(lm.config, name) == getattr(config, name), name
    assert f"{count_params(lm.config):,} parameters" in " ".join(card.split())
    assert lm.tokenizer.fingerprint == glm_jax.load_tokenizer("bundled").fingerprint


def test_no_file_is_larger_than_5_mb():
    sizes = {file.name: file.stat().st_size for file in MODEL.iterdir()}
    assert max(sizes.values()) <= 5_000_000, sizes
    assert "README.md" in sizes


@pytest.mark.nightly  # the figures change with the model alone
def test_it_fills_blanks_as_its_card_says(lm, card):
    """In whole per cent; another processor's rounding may decide a blank in fifty otherwise."""
    found = TASKS["blanks"](lm, lm.tokenizer, 50)
    for label, names in (
        ("this model", ("exact", "first_five")),
        ("pairs of words", ("bigram", "bigram_first_five")),
        ("single words", ("unigram", "unigram_first_five")),
    ):
        said = re.search(rf"^\| {label} \| (\d+)% \| (\d+)% \|$", card, re.M).groups()
        for name, value in zip(names, said, strict=True):
            assert 100 * found[name] == pytest.approx(float(value), abs=2.1), name


def test_it_fills_a_text_in_either_language(lm):
    assert lm.fill("Noah lived three hundred [MASK] years.") != ""
    filled = lm.fill("子曰：「學而時[MASK]之，不亦說乎？」", candidates=3)
    assert len({one.text for one in filled}) == len(filled) > 0
