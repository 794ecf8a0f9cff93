"""A disk that is full, read-only or broken: told apart from bugs, and said in one sentence."""

import errno
import os
import re
from pathlib import Path

# What no change of ours mends: the run stops, what is saved stays.
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
# tensorstore has no OSError, but says the number: "... [os_error_code='28']".
_NUMBER = re.compile(r"os_error_code='(\d+)'")


class DiskTrouble(RuntimeError):
    """Something could not be read or written, for a reason that lies with the disk."""


def disk_trouble(error: BaseException) -> str | None:
    """The system's words for what is wrong: "No space left on device"; None: something else is."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        if number is None and (match := _NUMBER.search(str(seen))):
            number = int(match[1])
        if number in TROUBLES:
            return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return None


def reason(error: BaseException) -> str:
    """What is wrong, in the system's words or else in the error's own; never empty."""
    own = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
    return disk_trouble(error) or own or type(error).__name__


def probe(directory: Path) -> None:
    """Makes the directory and a small file in it.

    Asked before a save, whose threads would wait minutes for a directory that cannot be made.

    Raises:
      OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / ".probe"
    try:
        file.write_bytes(bytes(4096))
    finally:
        file.unlink(missing_ok=True)
