"""The architecture holds: imports go down the floors, without cycles, with no TensorFlow below."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "glm_jax"

# First part of a module's name below glm_jax -> floor; commands (all the rest) are floor 4.
FLOORS = {
    **dict.fromkeys(
        ["errors", "files", "special_tokens", "batch", "config", "config_checks", "config_data"], 0
    ),
    **dict.fromkeys(["config_mixture", "config_model", "config_objective"], 0),
    **dict.fromkeys(["config_training", "config_files", "config_names"], 0),
    **dict.fromkeys(["freed_memory", "ids", "json_files", "paths", "platforms"], 0),
    **dict.fromkeys(["corruption", "bundled"], 0),
    **dict.fromkeys(["models", "kernels", "seeds", "sharding"], 1),
    **dict.fromkeys(["data", "training", "inference", "interop", "planning"], 2),
    "tasks": 3,
}
FORBIDDEN = {
    0: {"tensorflow", "seqio", "torch", "transformers", "flax", "optax", "orbax", "grain"},
    1: {"tensorflow", "seqio", "torch", "transformers", "orbax", "grain"},
    2: {"tensorflow", "seqio", "torch", "transformers"},
    3: {"torch", "transformers", "flax", "optax", "orbax"},
    4: {"torch", "transformers"},
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(name):
    parts = name.split(".")
    return FLOORS.get(parts[1], 4) if len(parts) > 1 else 0


def type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(name, inside_functions):
    """Absolute names that a module imports; relative imports are not used in this project."""
    found = set()
    pending = list(ast.parse(MODULES[name].read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else node.module for one in full}
        elif not type_checking(node) and (inside_functions or not is_function(node)):
            pending += ast.iter_child_nodes(node)
    return found


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_floor_and_below(name):
    above = {other for other in imports(name, True) & set(MODULES) if floor(other) > floor(name)}
    assert not above, f"{name} (floor {floor(name)}) imports {sorted(above)}"


@pytest.mark.parametrize("name", MODULES)
def test_no_floor_imports_what_it_must_not(name):
    roots = {other.partition(".")[0] for other in imports(name, True)}
    assert not roots & FORBIDDEN[floor(name)]


def test_there_is_no_import_cycle():
    graph = {name: imports(name, False) & set(MODULES) - {name} for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_import_glm_jax_imports_no_package_of_others():
    """Its time is measured by benchmarks/import_time.py; its cause is checked here."""
    code = "import sys, glm_jax; print({n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"jax", "numpy", "flax", "optax", "orbax", "tensorflow", "seqio", "grain"}
    assert not ast.literal_eval(loaded.stdout) & heavy
