"""The fifty bundled blanks are those that the tool chooses, and stand in held-out chapters."""

import importlib.util
import json
from pathlib import Path

from glm_jax.evaluation.data import held_out

ROOT = Path(__file__).parents[1]


def tool():
    path = ROOT / "tools" / "choose_blanks.py"
    spec = importlib.util.spec_from_file_location("choose_blanks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundled():
    text = (ROOT / "glm_jax" / "bundled" / "blanks.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def test_the_file_is_what_the_tool_chooses():
    assert tool().choose() == bundled()


def test_fifty_of_one_or_two_words_in_held_out_chapters():
    blanks, chapters = bundled(), [text.replace("\n", " ") for text in held_out("en")]
    assert [len(one["answer"].split()) for one in blanks].count(2) == 16
    assert len({json.dumps(one) for one in blanks}) == 50
    for one in blanks:
        joined = f"{one['before']} {one['answer']}{one['after']}"
        assert any(joined in chapter for chapter in chapters), one


def test_a_run_of_eight_words_with_the_blank_is_found():
    words = list("abcdefghijk")
    known = {tuple("cdefghij")}
    for place, expected in ((1, False), (2, True), (9, True), (10, False)):
        blank = {
            "before": " ".join(words[:place]),
            "answer": words[place],
            "after": " " + " ".join(words[place + 1 :]),
        }
        assert tool().occurs(blank, known) == expected
