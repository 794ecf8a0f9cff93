"""A path that is not on this machine: what is asked of it beyond the methods of pathlib.

`BucketPath` is one; another store needs its own. It is no `os.PathLike`: what would take it for a
path of this machine raises. Annotations say `Path` all the same, since hardly any of those who pass
a path on ask where it is; whoever does asks `is_remote`.
"""

import abc
from pathlib import Path
from typing import cast


class RemotePath(abc.ABC):
    """Has the methods of `pathlib.Path` that are used here, and these."""

    @abc.abstractmethod
    def __truediv__(self, name: str) -> "RemotePath": ...

    @abc.abstractmethod
    def is_file(self) -> bool: ...

    @abc.abstractmethod
    def write_bytes(self, content: bytes) -> None:
        """Whole or not at all."""

    @abc.abstractmethod
    def unlink(self, missing_ok: bool = False) -> None: ...

    @abc.abstractmethod
    def below(self) -> dict[str, dict[str, object]]:
        """What is known of all files below (size, checksums, ..), by their names from here."""

    @abc.abstractmethod
    def remove_below(self) -> None:
        """Removes all files below."""

    @abc.abstractmethod
    def download(self, target: Path) -> None:
        """Copies the file to one of this machine."""

    @abc.abstractmethod
    def upload(self, source: Path) -> None:
        """Writes the file from one of this machine, whole or not at all."""


def is_remote(path: object) -> bool:
    """Whether a path leads off this machine."""
    return isinstance(path, RemotePath)


def as_remote(path: object) -> RemotePath | None:
    """A remote path as such, with the methods that it alone has; None for others."""
    return path if isinstance(path, RemotePath) else None


def as_path(path: str | Path) -> Path:
    """`Path(path)`; a remote path stays itself."""
    return cast(Path, path) if is_remote(path) else Path(path)
