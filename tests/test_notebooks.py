"""Notebooks run, and each .ipynb holds the cells of the .py beside it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
# What a notebook says in the end, having asserted it.
SAYS = {
    "01_quickstart": "the same scores to the last bit",
    "02_chatglm_in_jax": "the same scores to the last bit",
    "03_blank_infilling_explained": "mean length",
}


def cells_of_script(text):
    """(kind, source) of each cell of a percent script, comment signs of Markdown taken away."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, source = part.split("\n", 1)
        if kind.strip() == "[markdown]":
            lines = [re.sub(r"^# ?", "", line) for line in source.strip().split("\n")]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", source.strip("\n")))
    return cells


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_both_forms_are_the_same(script):
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == cells_of_script(script.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_printed_and_no_path(script):
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not re.search(r"/(tmp|home|root|work)/", json.dumps(outputs))


@pytest.mark.processes
@pytest.mark.parametrize(
    "script",
    [  # what the first one does, train, fill, stop, go on, tests/test_train.py does at each change
        pytest.param(path, marks=[pytest.mark.nightly] * path.stem.startswith("01_"))
        for path in SCRIPTS
    ],
    ids=lambda path: path.stem,
)
def test_it_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "MPLBACKEND": "agg",
            "PYTHONPATH": str(script.parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[script.stem] in done.stdout


def test_there_are_notebooks():
    assert SCRIPTS
