"""What all tests share: the order of the files, and programs that are compiled once.

`make test` gives each file to one of two workers (`--dist loadfile`), and a long file that came
last would run alone, so those that start processes come first. Most of the time goes into
compiling: what one worker or one process of a test has compiled, the others read, and LLVM is not
asked to optimise (what it does with a program is XLA's business, and takes twice as long). Commands
that tests start with flags of their own, as test_train.py does, are compiled as users have them; so
is everything under `XLA_FLAGS=--xla_backend_optimization_level=3 make test`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

import jax
import pytest
from jaxtyping import install_import_hook

import tests.type_checker
from tests.quick_flags import QUICK

# Annotations, shapes among them, are checked at every call (docs/decisions/027). The hook must come
# before the first import of these packages. `generation.sampling` is left out: it has `Sampling`,
# to which users give what it refuses itself.
CHECKED = [
    "glm_jax.attention",
    "glm_jax.models",
    "glm_jax.losses",
    *[f"glm_jax.generation.{name}" for name in ("bans", "slots", "beam", "cache")],
    *[f"glm_jax.generation.{name}" for name in ("prefill", "engine", "asked", "programs")],
]
install_import_hook(CHECKED, f"{tests.type_checker.__name__}.check")

from tests.bucket_server import bucket, bucket_server  # noqa: E402 - after the hook

__all__ = ["bucket", "bucket_server"]  # fixtures

CACHE = "JAX_COMPILATION_CACHE_DIR"
LEVEL = "--xla_backend_optimization_level"


def pytest_configure(config: pytest.Config) -> None:
    if CACHE not in os.environ:  # the workers have what the first process sets
        config.stash[_MADE] = os.environ[CACHE] = tempfile.mkdtemp(prefix="glm_jax-compiled-")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    flags = os.environ.get("XLA_FLAGS", "")
    if LEVEL not in flags:
        os.environ["XLA_FLAGS"] = flags = f"{flags} {LEVEL}=0".strip()
    # libtpu does not know these flags, and would end the process: they are gone when it, or
    # another process, reads the variable.
    if f"{LEVEL}=0" in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {QUICK}"
        jax.jit(lambda: 0)()
        os.environ["XLA_FLAGS"] = flags


def pytest_unconfigure(config: pytest.Config) -> None:
    if made := config.stash.get(_MADE, None):
        shutil.rmtree(made, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def memory_is_given_back() -> Iterator[None]:
    """A command that a test calls here must not change how this process frees, until its end.

    For the whole session: fixtures of a module run commands too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glm_jax.train.keep_memory", lambda asked: None)
        yield


_MADE = pytest.StashKey[str]()
