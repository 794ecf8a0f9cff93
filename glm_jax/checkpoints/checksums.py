"""What makes a checkpoint's step complete: a manifest with the checksum of each of its files.

    WORKDIR/checkpoints/400/manifest.json
        {"step": 400, "metrics": {"eval/loss": 3.61},
         "files": {"params/d/1f3c..": {"size": 81920, "sha256": "9b1d.."}, ..}}

The formats below detect a file that is missing or cut off, but read a flipped bit without a word.
The manifest is written last; a step without one is what a killed process left, or one of a version
that wrote none (`_CHECKPOINT_METADATA` of later ones says that a manifest belongs to the step).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble, reason
from glm_jax.files import write_whole

MANIFEST = "manifest.json"
# Read at a time by each thread; hashing releases the interpreter's lock.
_CHUNK = 1 << 22
_THREADS = 8


def write_manifest(directory: Path, metrics: Mapping[str, float]) -> None:
    """Reads a step's files once and writes their checksums, all or nothing.

    Args:
      directory: of the step, written and closed.
      metrics: of the step, for `train.keep_best`.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    names = _files(directory)
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(lambda name: _sha256(directory / name), names))
    files = {
        name: {"size": (directory / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }
    content = {"step": int(directory.name), "metrics": dict(metrics), "files": files}
    write_whole(directory / MANIFEST, json.dumps(content, indent=1))


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a step; None where there is none, or where it is damaged itself."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        if disk_trouble(error) is None:
            return None
        raise DiskTrouble(f"{directory / MANIFEST} cannot be read: {reason(error)}") from error
    return manifest if _is_manifest(manifest) else None


def _is_manifest(content: Any) -> bool:
    """Whether every part of it has the type that `write_manifest` gives it."""
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        return False
    metrics, files = content.get("metrics"), content.get("files")
    return (
        isinstance(metrics, dict)
        and all(type(value) in (int, float) for value in metrics.values())
        and isinstance(files, dict)
        and all(
            isinstance(file, dict)
            and type(file.get("size")) is int
            and isinstance(file.get("sha256"), str)
            for file in files.values()
        )
    )


def is_complete(directory: Path) -> bool:
    """Whether a step was saved to its end: it has its manifest, or is of a version without any."""
    if os.path.lexists(directory / MANIFEST):
        return True
    try:
        about = json.loads((directory / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        return not about["custom_metadata"].get("manifest", False)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        # Not readable as a checkpoint either: whoever restores it says why.
        return True


def damage(directory: Path, part: str = "", read: bool = True) -> str | None:
    """What is wrong with a step's files, in half a sentence that names the first of them.

    Args:
      directory: of the step.
      part: only this file, or those below it, such as "params".
      read: compare checksums too; False: only whether each file is there with its size.

    Returns:
      None where every file is as it was saved, or where no manifest says how that was.

    Raises:
      DiskTrouble: a file is there but the disk does not give it, which says nothing of the file.
    """
    if not os.path.lexists(directory / MANIFEST):
        return None
    manifest = read_manifest(directory)
    if manifest is None:
        return f"{directory / MANIFEST} is not a manifest"
    names = [
        name for name in manifest["files"] if f"{name}/".startswith(f"{part}/" if part else "")
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _file_damage(directory, name, manifest["files"], read), names)
        return next((what for what in found if what is not None), None)


def size_of(directory: Path) -> int:
    """Bytes of a step's files."""
    return sum((directory / name).stat().st_size for name in _files(directory))


def _file_damage(directory: Path, name: str, files: Mapping[str, Any], read: bool) -> str | None:
    path, expected = directory / name, files[name]
    try:
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{path} has {size} bytes, was saved with {expected['size']}"
        if read and _sha256(path) != expected["sha256"]:
            return f"{path} is not what was saved (its checksum differs)"
    except OSError as error:
        if disk_trouble(error) is not None:
            raise DiskTrouble(f"{path} cannot be read: {reason(error)}") from error
        return f"{path}: {reason(error)}"
    return None


def _files(directory: Path) -> list[str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    names = [path.relative_to(directory).as_posix() for path in paths]
    # A killed writer may have left a temporary manifest.
    return [name for name in names if not name.removeprefix(".").startswith("manifest.")]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
