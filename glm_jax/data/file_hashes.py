"""SHA-256 of the files of a corpus: identifies the corpus wherever and whenever it was copied.

The hashes of a large corpus are cached. A file is read again only if its size, a time stamp or its
inode has changed. No tool can set the time of an inode's last change, so a file with new content
and an old modification time is noticed.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.files import write_whole

# The files of a smaller corpus, in bytes, are read at each start: a tenth of a second.
KEPT_FROM = 1 << 26

State = tuple[int, int, int, int]
_KNOWN: dict[tuple[str, State], str] = {}


def file_hashes(files: Sequence[Path], cache: Path) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Args:
      files: paths.
      cache: directory for the hashes of large corpora; created if missing.

    Raises:
      UserError: a file cannot be read.
    """
    try:
        names = [str(path.resolve()) for path in files]
        states = [_state(path) for path in files]
        large = sum(state[0] for state in states) >= KEPT_FROM
        kept = cache / f"{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}.json"
        if large:
            _remember(kept)
        wanted = list(zip(names, states, strict=True))
        missing = [one for one in wanted if one not in _KNOWN]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            found = pool.map(lambda one: _sha256(one[0]), missing)
            _KNOWN.update(zip(missing, found, strict=True))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    hashes = [_KNOWN[one] for one in wanted]
    if large and missing:
        rows = [
            [name, *state, digest] for (name, state), digest in zip(wanted, hashes, strict=True)
        ]
        # If the cache cannot be written, the files are read again at the next start.
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps(rows))
    return hashes


def _remember(kept: Path) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        for name, size, changed, inode_changed, inode, digest in json.loads(kept.read_text()):
            _KNOWN.setdefault((name, (size, changed, inode_changed, inode)), digest)


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _sha256(name: str) -> str:
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
