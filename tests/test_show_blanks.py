"""What the demo ends with: the sentences, and the answers beside them."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from glm_jax.evaluation.data import Blank, held_out

TOOL = Path(__file__).parents[1] / "tools" / "show_blanks.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("show_blanks", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_english_blank_is_shown_in_its_sentence(tool):
    blank = Blank("The flood was over. Noah lived three hundred", "fifty", " years after.")
    assert tool.shown(blank, chinese=False) == "Noah lived three hundred ____ years after."
    long = Blank("He said to them, " + "very " * 30 + "good", "and", " it was" + " so" * 60 + ".")
    before, after = tool.shown(long, chinese=False).split("____")
    assert before.startswith("… very ")
    assert after.endswith(" so …")
    assert len(before) < 105
    assert len(after) < 105


def test_chinese_blanks_are_single_characters_of_held_out_texts(tool):
    found = list(itertools.islice(tool.chinese_blanks(), 6))
    assert found == list(itertools.islice(tool.chinese_blanks(), 6))
    texts = "".join(held_out("zh"))
    for one in found:
        assert len(one.answer) == 1
        assert f"{one.before}{one.answer}{one.after}" in texts
        assert tool.shown(one, chinese=True) == f"{one.before}____{one.after}"
