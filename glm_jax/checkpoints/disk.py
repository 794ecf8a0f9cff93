"""Tells errors of the disk (full, read-only, broken) apart from bugs, and words them."""

import errno
import os
import re
from pathlib import Path

from glm_jax.buckets import is_url, os_error
from glm_jax.errors import with_causes

# Errors that the program cannot resolve: the run stops, and what is saved stays.
TROUBLES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ESTALE,
    errno.EFBIG,
)
# tensorstore raises no OSError, but its message has the number: "... [os_error_code='28']".
_NUMBER = re.compile(r"os_error_code='(\d+)'")


class DiskTrouble(RuntimeError):
    """A file could not be read or written because of the disk, not because of a bug."""


def disk_trouble(error: BaseException) -> str | None:
    """The system's message for an error of the disk: "No space left on device".

    The causes of the error are searched too. None: the disk is not the cause.
    """
    for seen in with_causes(error):
        meant = os_error(seen) or seen
        number = meant.errno if isinstance(meant, OSError) else None
        if number is None and (match := _NUMBER.search(str(seen))):
            number = int(match[1])
        if number in TROUBLES:
            # Of a bucket the error's own text says more than that of its number.
            of_bucket = meant is not seen or is_url(getattr(meant, "filename", None) or "")
            return str(getattr(meant, "strerror", "")) if of_bucket else os.strerror(number)
    return None


def reason(error: BaseException) -> str:
    """The message of an error: the system's if there is one, else the error's own; never empty."""
    own = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
    return disk_trouble(error) or own or type(error).__name__


def probe(directory: Path) -> None:
    """Creates the directory, and writes and removes a small file in it.

    This precedes a save, whose threads would wait minutes for a directory that cannot be created.

    Raises:
      OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / ".probe"
    try:
        file.write_bytes(bytes(4096))
    finally:
        file.unlink(missing_ok=True)
