"""The adapter that aligns the bundled model: whole, small, and as its card says."""

import re
from pathlib import Path

import pytest

import glm_jax
from glm_jax.evaluation.tasks import TASKS
from glm_jax.models.flops import parameter_groups
from glm_jax.paths import adapter_directory

FOLDER = Path(__file__).parents[1] / "glm_jax" / "bundled" / "aligned"


@pytest.fixture(scope="module")
def lm():
    return glm_jax.load("bundled", adapter="bundled:aligned")


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def test_it_is_found_by_its_name_and_is_small():
    assert adapter_directory("bundled:aligned").resolve() == FOLDER
    sizes = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    names = {"adapter_config.json", "adapter_model.safetensors", "base.json", "README.md"}
    assert set(sizes) == names
    assert sum(sizes.values()) < 2_000_000


def test_it_has_learnt_to_stop(lm, card):
    """The second row of the card's table of texts."""
    text = (
        "Noah began to be a farmer, and planted a vineyard. He drank of the wine and got drunk. He "
        "was uncovered within his tent. Ham, the father of Canaan, saw [MASK] nakedness of his "
        "father, and told his two brothers outside."
    )
    base = glm_jax.load("bundled")
    assert f"| {text} | the | that the | the |" in card
    assert base.fill(text, max_new_tokens=8) == text.replace("[MASK]", "that the")
    assert lm.fill(text, max_new_tokens=8) == text.replace("[MASK]", "the")
    adapters = parameter_groups(lm.params)["adapters"]
    assert adapters > 0 == parameter_groups(base.params)["adapters"]
    assert f"{adapters:,} numbers" in " ".join(card.split())


@pytest.mark.nightly  # the figures change with the model alone
def test_it_fills_blanks_as_its_card_says(lm, card):
    """In whole per cent; another processor's rounding may decide a blank in fifty otherwise."""
    found = TASKS["blanks"](lm, lm.tokenizer, 50)
    for label, name in (
        ("fifty blanks, exactly", "exact"),
        ("the same, among the first five", "first_five"),
    ):
        said = re.search(rf"^\| {label} \| \d+% \| (\d+)% \|$", card, re.M)[1]
        assert 100 * found[name] == pytest.approx(float(said), abs=2.1), name
