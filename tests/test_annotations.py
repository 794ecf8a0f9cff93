"""`Any` is rare, and says why it stands (docs/decisions/027)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "glm_jax"

# Names `Any` in the package, imports apart. Whoever removes one lowers it.
MOST = 10
# A comment that gives the reason stands on the line, or so many lines above at most.
_ABOVE = 3


def places():
    """The file and the line of each name `Any`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            if isinstance(node, ast.Name | ast.Attribute) and name == "Any":
                yield path, node.lineno


def test_there_are_as_many_as_are_known():
    found = [f"{path.relative_to(PACKAGE)}:{line}" for path, line in places()]
    assert len(found) == MOST, found


def test_each_has_its_reason_beside_it():
    for path, line in places():
        lines = path.read_text(encoding="utf-8").splitlines()
        near = lines[max(0, line - 1 - _ABOVE) : line]
        assert any("`Any`" in one.partition("#")[2] for one in near), f"{path}:{line}"
