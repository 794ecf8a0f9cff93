"""Paths as people write them, and where the user's own files go."""

import importlib.resources
import os
from pathlib import Path
from typing import cast

from glm_jax.buckets import BucketPath, is_url
from glm_jax.errors import UserError
from glm_jax.remote import as_remote


def expanded(path: str | Path) -> Path:
    """A path as it is used: `~/x` is a directory of the user's, gs://b/x one in a bucket.

    A shell does the first for `--workdir ~/x`, and not for `--workdir=~/x` and
    `--set data.store=~/x`; where no home is known the path stays as it is.

    Returns:
      A `pathlib.Path`, or a `BucketPath`, which has the same methods (see there).

    Raises:
      UserError: a URL of another kind.
    """
    if is_url(path):
        return cast(Path, as_remote(path) or BucketPath(str(path)))
    return Path(os.path.expanduser(path))


def local(path: str | Path, what: str) -> Path:
    """`expanded`, for what must lie on this machine.

    Raises:
      UserError: it is a URL; names `what`.
    """
    if is_url(path):
        raise UserError(f"{what} takes a path on this machine; got {str(path)!r}")
    return expanded(path)


def checkpoint(path: str | Path) -> Path:
    """The directory of a model: `expanded`, and "bundled" is the small one that the package brings.

    checkpoint("bundled") -> <glm_jax>/bundled/model        checkpoint("./bundled") -> ./bundled
    """
    return _bundled() / "model" if path == "bundled" else expanded(path)


def adapter_directory(path: str | Path) -> Path:
    """The directory of an adapter: `expanded`, and "bundled:aligned" is that of the bundled model.

    adapter_directory("bundled:aligned") -> <glm_jax>/bundled/aligned
    """
    return _bundled() / "aligned" if path == "bundled:aligned" else expanded(path)


def _bundled() -> Path:
    return Path(str(importlib.resources.files("glm_jax.bundled")))


def cache_directory() -> Path:
    """`$GLM_JAX_CACHE`, else `$XDG_CACHE_HOME/glm_jax`, else `~/.cache/glm_jax`.

    Raises:
      UserError: none is known: no HOME, and a user that the system has no entry for, as in some
        containers.
    """
    if own := os.environ.get("GLM_JAX_CACHE"):
        return local(own, "GLM_JAX_CACHE")
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return local(shared, "XDG_CACHE_HOME") / "glm_jax"
    home = os.path.expanduser("~")
    if home == "~":
        raise UserError(
            "no home directory is known in which to keep files: set the environment variable "
            "GLM_JAX_CACHE (or HOME) to a directory"
        )
    return Path(home, ".cache", "glm_jax")
