"""Copies what lies in a bucket to this machine's disk, once, for what must be memory-mapped.

    gs://b/stores/wiki    ->    ~/.cache/glm_jax/fetched/wiki-3f2a9c0d51b7e684

The name changes with the names, sizes and checksums of the objects, so that a copy is that of what
lies there now. Each object's copy is compared with the bucket's checksum of it.
"""

import base64
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.files import new_directory
from glm_jax.paths import cache_directory
from glm_jax.remote import RemotePath, as_remote

_THREADS = 8
_CHUNK = 1 << 22
# Bytes from which on copying takes seconds, and a line announces it.
_ANNOUNCED = 1 << 26
# What the bucket says of an object: one of these at least, base64.
_CHECKSUMS = ("crc32c", "md5Hash")


def fetched(
    path: Path,
    wanted: Callable[[str], bool] = lambda name: True,
    check: Callable[[Path], None] = lambda copy: None,
) -> Path:
    """The copy on this machine of a directory in a bucket; of any other path, the path itself.

    Args:
      path: of the directory.
      wanted: which files, by their names from there.
      check: raises a `UserError` where the copy is not as it should be; called once, before it is
        kept.

    Raises:
      UserError: nothing wanted lies there, a file arrived with another checksum, or as `check`.
      OSError: the disk is full, or the bucket fails midway.
    """
    remote = as_remote(path)
    if remote is None:
        return path
    found = {name: about for name, about in remote.below().items() if wanted(name)}
    if not found:
        raise UserError(f"nothing lies in {str(path)!r}, or nothing of what is looked for there")
    copy = cache_directory() / "fetched" / f"{path.name}-{_key(remote, found)}"
    if copy.exists():
        return copy
    size = sum(int(str(about["size"])) for about in found.values())
    _refuse_too_large(remote, size, copy)
    if size > _ANNOUNCED:
        print(
            f"copying {str(path)!r} ({size / 2**20:,.0f} MiB) to {copy} ...",
            file=sys.stderr,
            flush=True,
        )
    with new_directory(copy, Path.exists) as fresh:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda name: _fetch(remote, name, found[name], fresh), found))
        try:
            check(fresh)
        except UserError as error:
            raise UserError(str(error).replace(str(fresh), str(path))) from error
    return copy


def _key(remote: RemotePath, found: Mapping[str, Mapping[str, object]]) -> str:
    about = {
        name: [one["size"], *(one.get(kind) for kind in _CHECKSUMS)] for name, one in found.items()
    }
    text = json.dumps([str(remote), about], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refuse_too_large(remote: RemotePath, size: int, copy: Path) -> None:
    disk = next(one for one in copy.parents if one.exists())
    free = shutil.disk_usage(disk).free
    if size > free:
        raise UserError(
            f"{str(remote)!r} has {size:,} bytes, and the disk of {str(disk)!r} has {free:,} free; "
            "GLM_JAX_CACHE names a directory on another disk"
        )


def _fetch(remote: RemotePath, name: str, about: Mapping[str, object], fresh: Path) -> None:
    target = fresh / name
    if not target.resolve().is_relative_to(fresh.resolve()):
        raise UserError(f"{str(remote / name)!r} has a name that leads out of its directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    (remote / name).download(target)
    kind = next((kind for kind in _CHECKSUMS if about.get(kind)), None)
    if kind is None or _checksum(target, kind) != about[kind]:
        raise UserError(
            f"the copy of {str(remote / name)!r} is not what lies there "
            f"({'the bucket gives no checksum' if kind is None else 'its checksum differs'}); "
            "start again"
        )


def _checksum(path: Path, kind: str) -> str:
    """As the bucket writes it."""
    import google_crc32c  # gcsfs requires it

    digest = hashlib.md5() if kind == "md5Hash" else google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()
