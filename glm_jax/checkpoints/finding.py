"""Tells whether the path of a model is a run of this project or a Hugging Face directory."""

from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.interop.origin import CONFIG

RUN = "run.json"


def find_workdir(path: Path) -> Path | None:
    """The workdir of a path that is a workdir or one of its checkpoints.

    Returns:
      None for a Hugging Face directory.

    Raises:
      UserError: it is neither, or there is no such directory.
    """
    if not path.exists():
        raise UserError(
            f"no directory {str(path)!r}; a model of a hub must be downloaded first, and the path "
            "of its directory given"
        )
    workdir = next((p for p in (path, path.parent.parent) if (p / RUN).is_file()), None)
    if workdir is None and not (path / CONFIG).is_file():
        raise UserError(f"{str(path)!r} holds neither {CONFIG} (Hugging Face) nor {RUN} (a run)")
    return workdir
