"""Makes notebooks/*.ipynb, with their outputs, from the percent scripts beside them.

pip install -e '.[notebooks,interop]'
python tools/make_notebooks.py
"""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def main() -> None:
    for script in sorted((Path(__file__).parents[1] / "notebooks").glob("*.py")):
        notebook = jupytext.read(script)
        NotebookClient(notebook, timeout=600).execute()
        notebook.metadata = nbformat.from_dict(KERNEL)
        for index, cell in enumerate(notebook.cells):
            # Times and random ids would change with every run.
            cell.metadata, cell.id = nbformat.from_dict({}), f"cell-{index}"
            cell.source = cell.source.strip("\n")
            # Warnings and progress bars belong to the machine.
            if cell.cell_type == "code":
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, script.with_suffix(".ipynb"))
        print(script.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()
