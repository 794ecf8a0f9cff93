"""Every module has the test file that its name says: `glm_jax/a/b.py` has `tests/a/test_b.py`.

Underscores around a name are left out: `__main__.py` has `test_main.py`.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Modules without a mirror, and why.
WITHOUT: dict[str, str] = {}

MODULES = sorted(
    path.relative_to(ROOT / "glm_jax").as_posix()
    for path in (ROOT / "glm_jax").rglob("*.py")
    if path.name != "__init__.py"
)


def mirror(module):
    path = Path(module)
    return ROOT / "tests" / path.with_name(f"test_{path.stem.strip('_')}.py")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_mirror(module):
    path = mirror(module)
    if module in WITHOUT:
        assert not path.exists(), f"{module} has a mirror now; take it out of WITHOUT"
        return
    assert path.is_file(), f"{module} has no {path.relative_to(ROOT)}"
    text = path.read_text(encoding="utf-8")
    assert "def test_" in text, f"{path.relative_to(ROOT)} holds no test"
    assert "assert" in text or "raises" in text or "check" in text, f"{path} asserts nothing"


def test_exceptions_are_modules_and_have_a_reason():
    assert set(WITHOUT) <= set(MODULES)
    assert all(WITHOUT.values())
