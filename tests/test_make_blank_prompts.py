"""What tools/make_blank_prompts.py cuts out of sentences, and how a text is made to fit."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import glm_jax
from glm_jax.tokenizers.framing import blanked_ids

TOOLS = Path(__file__).parents[1] / "tools"
BEFORE = "And it came to pass in those days that the king went up with all his host."
SENTENCE = "The people of the city saw that the walls were broken down in the night."


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "make_blank_prompts", TOOLS / "make_blank_prompts.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TOOLS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


@pytest.fixture(scope="module")
def tokenizer():
    return glm_jax.load_tokenizer("bundled")


def test_a_text_is_cut_in_front_and_never_in_its_sentence(tool, tokenizer):
    blank = {"before": f"{BEFORE * 4} The people", "answer": "saw", "after": " that it was so."}
    text = tool.short_prompt(blank, tokenizer)
    assert text.endswith("The people [MASK] that it was so.")
    assert len(blanked_ids(tokenizer, text)) <= tool.LONGEST
    longer = f"{blank['before'].removesuffix(text.split(' [MASK]')[0]).split(' ')[-2]} {text}"
    assert len(blanked_ids(tokenizer, longer)) > tool.LONGEST
    assert tool.short_prompt({**blank, "before": "The people"}, tokenizer) == (
        "The people [MASK] that it was so."
    )
    assert tool.short_prompt({**blank, "after": " and so on" * 60}, tokenizer) is None


def test_each_sentence_gives_one_blank_and_the_same_each_time(tool, tokenizer):
    pairs = [("", SENTENCE), (BEFORE, SENTENCE), ("", "Too short.")]

    def made(wanted=lambda blank: True):
        return list(tool.blanks(pairs, np.random.default_rng(3), tokenizer, wanted))

    found = made()
    assert len(found) == 2
    for one in found:
        assert one["prompt"].replace("[MASK]", one["answer"]).endswith(SENTENCE)
        assert 1 <= len(one["answer"].split()) <= 2
    assert made() == found
    assert made(lambda blank: False) == []
