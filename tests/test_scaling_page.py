"""docs/scaling.md is what its tool makes of the kept figures."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "make_scaling_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tool):
    return tool.page(tool.read())


def test_the_page_is_up_to_date(tool, page):
    """If not: python tools/make_scaling_page.py."""
    assert tool.PAGE.read_text(encoding="utf-8") == page


def test_every_model_has_every_slice_from_16_to_512_chips(tool, page):
    for name in ("GLM-10B", "ChatGLM2-6B", "ChatGLM-6B", "GLM-130B"):
        section = page[page.index(f"## {name}, calculated") :].split("\n## ")[0]
        for chip in ("v5e", "v5p", "v6e"):
            table = section[section.index(f"\n{chip} (") :].split("\n\n")[1]
            sizes = [int(line.split("|")[1]) for line in table.splitlines()[2:]]
            assert sizes == [16, 32, 64, 128, 256, 512]


def test_a_program_that_was_not_compiled_to_reckon_with_is_said(tool):
    with pytest.raises(SystemExit, match="nothing compiled to reckon GLM-10B on v5e with"):
        tool.share_for({"compiled": []}, {}, "GLM-10B", "v5e")
