"""docs/config.md is what the dataclasses say, with a sentence for every option."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from glm_jax.config import Config, PublishedOptions, to_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "make_config_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    """If not: python tools/make_config_page.py."""
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()


def test_every_option_stands_there_with_its_default_and_a_sentence(tool):
    page = tool.page()
    default = json.loads(to_json(Config()))
    assert default["objective"].pop("published") == dataclasses.asdict(PublishedOptions())
    default["objective.published"] = dataclasses.asdict(PublishedOptions())
    for section, options in default.items():
        assert page.count(f"# {section}: ") == 1
        for name, value in options.items():
            head = page.index(f"**`{section}.{name}`**")
            line, sentence = page[head:].split("\n")[:2]
            assert f"= `{value!r}`".replace("'", '"') in line
            assert len(sentence.strip()) > 1, name


def test_docstrings_are_read(tool):
    summary, notes = tool.split_docstring(
        """What it is.

    Attributes:
      a, b: shares of
        rows: half each.
      c: a choice.
    """
    )
    assert summary.strip() == "What it is."
    assert {name: tool._plain(note) for name, note in notes.items()} == {
        "a": "shares of rows: half each.",
        "b": "shares of rows: half each.",
        "c": "a choice.",
    }
