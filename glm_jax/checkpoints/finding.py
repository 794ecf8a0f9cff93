"""Tells whether the path of a model is a run of this project or a Hugging Face directory."""

from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.fetching import fetched
from glm_jax.interop.companions import COMPANIONS
from glm_jax.interop.origin import CONFIG
from glm_jax.interop.weights import INDEX, WEIGHTS
from glm_jax.remote import is_remote

RUN = "run.json"
_SMALL = {RUN, "data.json", *COMPANIONS}


def find_workdir(path: Path) -> Path | None:
    """The workdir of a path that is a workdir or one of its checkpoints.

    Returns:
      None for a Hugging Face directory.

    Raises:
      UserError: it is neither, or there is no such directory.
    """
    if not path.exists():
        if is_remote(path):
            raise UserError(f"nothing lies in {str(path)!r}; give the directory of a model")
        raise UserError(
            f"no directory {str(path)!r}; a model of a hub must be downloaded first, and the path "
            "of its directory given"
        )
    workdir = next((p for p in (path, path.parent.parent) if (p / RUN).is_file()), None)
    if workdir is None and not (path / CONFIG).is_file():
        raise UserError(f"{str(path)!r} holds neither {CONFIG} (Hugging Face) nor {RUN} (a run)")
    return workdir


def on_this_machine(path: Path, workdir: Path | None) -> Path:
    """What of a model must be read from a disk: all of a Hugging Face directory, of a run the files
    beside its checkpoints. One that lies in a bucket is copied here, once.

    Args:
      path: of the model.
      workdir: of `find_workdir(path)`.

    Raises:
      UserError: as `fetched`.
    """
    if workdir is not None:
        return fetched(workdir, _SMALL.__contains__)
    whole = path / WEIGHTS, path / INDEX
    return fetched(path, _without_pickles if any(one.is_file() for one in whole) else _plain)


def _plain(name: str) -> bool:
    return "/" not in name


def _without_pickles(name: str) -> bool:
    return _plain(name) and not name.endswith((".bin", ".bin.index.json", ".pt", ".pth"))
