"""Paths as people write them, and where the user's own files go."""

import importlib.resources
import os
from pathlib import Path

from glm_jax.errors import UserError


def expanded(path: str | Path) -> Path:
    """`~/x` as a directory of the user's; where no home is known it stays as it is.

    A shell does it for `--workdir ~/x`, and not for `--workdir=~/x` and `--set data.store=~/x`.
    """
    return Path(os.path.expanduser(path))


def checkpoint(path: str | Path) -> Path:
    """The directory of a model: `expanded`, and "bundled" is the small one that the package brings.

    checkpoint("bundled") -> <glm_jax>/bundled/model        checkpoint("./bundled") -> ./bundled
    """
    if path == "bundled":
        return Path(str(importlib.resources.files("glm_jax.bundled"))) / "model"
    return expanded(path)


def cache_directory() -> Path:
    """`$GLM_JAX_CACHE`, else `$XDG_CACHE_HOME/glm_jax`, else `~/.cache/glm_jax`.

    Raises:
      UserError: none is known: no HOME, and a user that the system has no entry for, as in some
        containers.
    """
    if own := os.environ.get("GLM_JAX_CACHE"):
        return expanded(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return expanded(shared) / "glm_jax"
    home = os.path.expanduser("~")
    if home == "~":
        raise UserError(
            "no home directory is known in which to keep files: set the environment variable "
            "GLM_JAX_CACHE (or HOME) to a directory"
        )
    return Path(home, ".cache", "glm_jax")
