"""The house holds: one order of all packages, a limit on depth, TensorFlow in `tasks` alone."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "glm_jax"

# From the ground up: a package imports from those before it alone, in functions too. "" is the
# ground, the modules of GROUND beside the commands; "commands" is all else at the top level.
ORDER = [
    "",
    "bundled",
    "config",
    "cli",
    "tokenizers",
    "corruption",
    "sharding",
    "attention",
    "models",
    "adapters",
    "losses",
    "interop",
    "data",
    "checkpoints",
    "generation",
    "training",
    "planning",
    "tasks",
    "pipeline",
    "evaluation",
    "serving",
    "commands",
]
GROUND = {
    *["arrays", "batch", "buckets", "checks", "draws", "errors", "fetching", "files"],
    *["json_files", "paths", "platforms", "ragged", "remote", "special_tokens"],
}
COMMANDS = {
    *[
        "cache",
        "chat",
        "convert",
        "evaluate",
        "generate",
        "plan",
        "preview",
        "report",
        "serve",
        "train",
    ],
    "__main__",
}
# The order of packages within one; its own modules may stand anywhere between them.
INNER = {
    "attention": ["tpu", "gpu"],
    "interop": ["architectures"],
    "corruption": ["published"],
    "data": ["examples"],
    "evaluation": ["infilling_report"],
    "training": ["optimizer", "watch", "rollouts", "run"],
}
# Modules on the longest way down, this package's alone.
DEEPEST = 12

FRAMEWORKS = {"tensorflow", "seqio", "torch", "transformers"}
TRAINING = {"flax", "optax", "orbax"}
FORBIDDEN = {
    **dict.fromkeys(ORDER, FRAMEWORKS),
    **dict.fromkeys(ORDER[: ORDER.index("sharding")], FRAMEWORKS | TRAINING),
    **dict.fromkeys(
        ["sharding", "attention", "models", "adapters", "losses"], FRAMEWORKS | {"orbax"}
    ),
    "tasks": {"torch", "transformers", "flax", "optax", "orbax"},
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(name):
    """The package of a module, by its name in ORDER: glm_jax.data.rows is in "data"."""
    parts = name.split(".")
    if len(parts) == 1:
        return "commands"  # glm_jax itself names all of the public surface
    if (PACKAGE / parts[1]).is_dir():
        return parts[1]
    assert parts[1] in GROUND | COMMANDS, f"{name} is neither of the ground nor a command"
    return "" if parts[1] in GROUND else "commands"


def type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@functools.cache
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
    return frozenset(found)


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def own(name):
    """The modules of this package that a module imports, in functions too."""
    return imports(name, True) & set(MODULES) - {name, "glm_jax"}


def test_every_package_has_its_place_in_the_order():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(ORDER) - {"", "commands"}
    inner = {path.parent.relative_to(PACKAGE).parts for path in PACKAGE.glob("*/*/__init__.py")}
    assert inner == {(outer, name) for outer, names in INNER.items() for name in names}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_package_and_those_below(name):
    place = ORDER.index(room(name))
    above = {other for other in own(name) if ORDER.index(room(other)) > place}
    assert not above, f"{name} imports {sorted(above)}"


@pytest.mark.parametrize("outer", INNER)
def test_packages_within_one_are_in_their_order(outer):
    names = INNER[outer]
    for name in MODULES:
        parts = name.split(".")
        if parts[1:2] != [outer] or len(parts) < 4:
            continue
        others = {o.split(".")[2] for o in own(name) if o.split(".")[1] == outer} & set(names)
        above = names[names.index(parts[2]) + 1 :]
        assert not others & set(above), f"{name} imports from {sorted(others & set(above))}"


@functools.cache
def way_down(name):
    """The longest chain of imports that begins at a module."""
    return max(((name, *way_down(other)) for other in own(name)), key=len, default=(name,))


def test_no_chain_of_imports_is_deeper_than_the_limit():
    deepest = max((way_down(name) for name in MODULES if name != "glm_jax"), key=len)
    assert len(deepest) <= DEEPEST, " > ".join(name[8:] for name in deepest)


@pytest.mark.parametrize("name", MODULES)
def test_no_package_imports_what_it_must_not(name):
    roots = {other.partition(".")[0] for other in imports(name, True)}
    assert not roots & FORBIDDEN[room(name)]


@pytest.mark.parametrize("name", MODULES)
def test_only_config_and_models_know_the_names_of_position_encodings(name):
    """Others ask: `config.fills_blanks`, `config.has_position_table`, .. Formats name theirs."""
    if room(name) in ("config", "models") or name.startswith("glm_jax.interop.architectures."):
        return
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        compared = isinstance(node, ast.Compare) and "position_encoding" in ast.unparse(node)
        assert not compared, f"{name}, line {node.lineno}: {ast.unparse(node)}"


def test_there_is_no_import_cycle():
    graph = {name: imports(name, False) & set(MODULES) - {name} for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_import_glm_jax_imports_no_package_of_others():
    """Its time is measured by benchmarks/import_time.py; its cause is checked here."""
    code = "import sys, glm_jax; print({n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"jax", "numpy", "flax", "optax", "orbax", "tensorflow", "seqio"}
    heavy |= {"etils", "fsspec", "gcsfs", "google"}
    assert not ast.literal_eval(loaded.stdout) & heavy
