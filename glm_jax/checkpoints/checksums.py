"""The manifest of a checkpoint: the checksum of each of its files; it makes the step complete.

    WORKDIR/checkpoints/400/manifest.json
        {"step": 400, "metrics": {"eval/loss": 3.61},
         "files": {"params/d/1f3c..": {"size": 81920, "sha256": "9b1d.."}, ..}}

The storage formats detect a file that is missing or truncated, but not a flipped bit. The manifest
is written last. A step without one was left by a killed process, or written by a version without
manifests. Later versions say in `_CHECKPOINT_METADATA` that the step has a manifest.

With several processes each writes its own shards, in files whose path names it, and hashes these;
the first one hashes the rest and writes the manifest of all:

    params/ocdbt.process_1/d/1f3c..    by process 1: its shards
    params/array_metadatas/process_1   by process 1
    params/d/09ae.., params/_METADATA  by the first: the index over the shards of all
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict, TypeGuard

from glm_jax.checkpoints.disk import DiskTrouble, disk_trouble, reason
from glm_jax.files import names_below, there, write_whole
from glm_jax.remote import is_remote

MANIFEST = "manifest.json"
# Bytes that each thread reads at a time; hashing releases the interpreter's lock.
_CHUNK = 1 << 22
_THREADS = 8


class _File(TypedDict):
    size: int
    sha256: str


Files = dict[str, _File]


class Manifest(TypedDict):
    """The content of a manifest."""

    step: int
    metrics: dict[str, float]
    files: Files


def writer_of(name: str, count: int) -> int:
    """The process that wrote a file of a step, by its path; the first wrote what names none.

    Args:
      name: relative to the step.
      count: number of processes of the run that wrote it.
    """
    found = re.search(r"(?:^|/)(?:ocdbt\.)?process_(\d+)(?:/|$)", name)
    index = int(found[1]) if found else 0
    return index if index < count else 0


def checksums(directory: Path, index: int = 0, count: int = 1) -> Files:
    """Reads the files of a step that process `index` of `count` wrote, and hashes them.

    Raises:
      OSError: the disk cannot be read.
    """
    return _checksums(
        directory, [name for name in _files(directory) if writer_of(name, count) == index]
    )


def _checksums(directory: Path, names: Sequence[str]) -> Files:
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(lambda name: _sha256(directory / name), names))
    return {
        name: {"size": (directory / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }


def write_manifest(
    directory: Path, metrics: Mapping[str, float], known: Files | None = None
) -> None:
    """Writes the checksums of all files of a step, all or nothing.

    Args:
      directory: of the step, with all files written.
      metrics: of the step, for `train.keep_best`.
      known: checksums that were made; files that are not among them are read here.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    known = known or {}
    rest = _checksums(directory, [name for name in _files(directory) if name not in known])
    files: Files = dict(sorted((known | rest).items()))
    content: Manifest = {"step": int(directory.name), "metrics": dict(metrics), "files": files}
    write_whole(directory / MANIFEST, json.dumps(content, indent=1))


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a step; None if there is none, or if it is damaged itself.

    Raises:
      DiskTrouble: it is there, but the disk cannot be read.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        if disk_trouble(error) is None:
            return None
        raise DiskTrouble(f"{directory / MANIFEST} cannot be read: {reason(error)}") from error
    return manifest if _is_manifest(manifest) else None


def _is_manifest(content: object) -> TypeGuard[Manifest]:
    """Whether everything in it has the type that `write_manifest` writes."""
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
    """Whether a step was saved completely: it has a manifest, or its version writes none."""
    if there(directory / MANIFEST):
        return True
    try:
        about = json.loads((directory / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        return not about["custom_metadata"].get("manifest", False)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        # Not readable as a checkpoint either: restoring it raises the reason. In a bucket a step
        # has its name from its first object on, and this file is one of the last.
        return not is_remote(directory)


def damage(
    directory: Path, part: str = "", read: bool = True, share: tuple[int, int] = (0, 1)
) -> str | None:
    """Compares a step's files with its manifest.

    Args:
      directory: of the step.
      part: only this file, or the files below this directory, such as "params"; "": all.
      read: compare checksums too; False: only existence and sizes.
      share: (index, count): only every count-th part of the bytes, so that several processes verify
        a step together; whoever wrote a file, they share the reading alike.

    Returns:
      A clause that names the first wrong file and what is wrong with it. None if every file is as
      it was saved, or if there is no manifest.

    Raises:
      DiskTrouble: a file is there but cannot be read, which does not mean that it is damaged.
    """
    if not there(directory / MANIFEST):
        return None
    manifest = read_manifest(directory)
    if manifest is None:
        return f"{directory / MANIFEST} is not a manifest"
    names = [
        name for name in manifest["files"] if f"{name}/".startswith(f"{part}/" if part else "")
    ]
    names = _shared_out(names, manifest["files"], share[1])[share[0]]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _file_damage(directory, name, manifest["files"], read), names)
        return next((what for what in found if what is not None), None)


def _shared_out(names: Sequence[str], files: Files, count: int) -> list[list[str]]:
    """Files by process: each in turn, largest first, to the process with the fewest bytes.

    sizes 9 5 4 1 over two: [9 1] [5 4]
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0] * count
    for name in sorted(names, key=lambda name: (-files[name]["size"], name)):
        least = loads.index(min(loads))
        shares[least].append(name)
        loads[least] += files[name]["size"]
    return shares


def size_of(directory: Path) -> int:
    """Total bytes of a step's files."""
    return sum((directory / name).stat().st_size for name in _files(directory))


def _file_damage(directory: Path, name: str, files: Mapping[str, _File], read: bool) -> str | None:
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
    # A killed writer may have left a temporary manifest.
    return [
        name
        for name in names_below(directory)
        if not name.removeprefix(".").startswith("manifest.")
    ]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
