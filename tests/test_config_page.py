"""docs/config.md is what the dataclasses say, with a sentence for every option."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from glm_jax.config import Config

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
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(getattr(Config(), section.name)):
            head = page.index(f"**`{section.name}.{field.name}`**")
            line, sentence = page[head:].split("\n")[:2]
            assert f"= `{field.default!r}`".replace("'", '"') in line
            assert len(sentence.strip()) > 1, field.name


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
