"""Makes notebooks/*.ipynb, with their outputs, from the percent scripts beside them.

    python tools/make_notebooks.py [01_quickstart ...]

It runs the cells itself and needs no Jupyter: what a cell prints, the figures it shows and the
value of its last line are kept; warnings, progress bars and times belong to the machine and are
not. Each notebook runs in a directory of its own.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import pprint
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

PLAIN = {"Software": None}  # no version of matplotlib in a picture
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def cells_of(script: str) -> list[tuple[str, str]]:
    """(kind, source) of each cell of a percent script, comment signs of Markdown taken away."""
    cells = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, source = part.split("\n", 1)
        if kind.strip() == "[markdown]":
            lines = [re.sub(r"^# ?", "", line) for line in source.strip().split("\n")]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", source.strip("\n")))
    return cells


def run_cell(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Runs a cell among `names`; returns its outputs as the format has them."""
    import matplotlib.pyplot as plt

    outputs: list[dict[str, Any]] = []
    printed = io.StringIO()

    def flush() -> None:
        if printed.getvalue():
            # A command to be typed names the interpreter of this machine.
            text = _lines(printed.getvalue().replace(sys.executable, "python"))
            outputs.append({"name": "stdout", "output_type": "stream", "text": text})
            printed.seek(0)
            printed.truncate()

    def show() -> None:
        flush()
        for figure in map(plt.figure, plt.get_fignums()):
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=72, bbox_inches="tight", metadata=PLAIN)
            data = {
                "image/png": base64.b64encode(picture.getvalue()).decode(),
                "text/plain": ["<Figure>"],
            }
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")

    plt.show = show
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    flush()
    if value is not None:
        data = {"text/plain": _lines(pprint.pformat(value))}
        outputs.append(
            {
                "data": data,
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


def make(script: Path) -> None:
    """Writes the notebook of a script."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for index, (kind, source) in enumerate(cells_of(script.read_text(encoding="utf-8"))):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{index}", "metadata": {}}
        if kind == "code":
            number += 1
            cell |= {"execution_count": number, "outputs": run_cell(source, names, number)}
        cells.append({**cell, "source": _lines(source)})
    notebook = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    script.with_suffix(".ipynb").write_text(text + "\n", encoding="utf-8")
    print(script.with_suffix(".ipynb").name)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="notebooks to make (default: all)")
    names = parser.parse_args().names
    scripts = sorted(NOTEBOOKS.glob("*.py"))
    if unknown := set(names) - {script.stem for script in scripts}:
        parser.error(f"no notebook {sorted(unknown)}")
    os.environ["PYTHONPATH"] = str(NOTEBOOKS.parent)  # for commands that cells start
    sys.path.insert(0, str(NOTEBOOKS.parent))
    import matplotlib

    matplotlib.use("agg")
    for script in scripts:
        if not names or script.stem in names:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                make(script)


if __name__ == "__main__":
    main()
