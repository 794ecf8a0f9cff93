"""Reads the files of a store once, to verify their checksums."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

# A store of more bytes is read in the background; a smaller one takes tenths of a second.
IN_BACKGROUND = 1 << 26
_CHUNK = 1 << 22


def content_checksum(values: np.ndarray) -> str:
    """SHA-256 of the values of an array, in hexadecimal; independent of the file's header.

    Args:
      values: of any type, little endian.
    """
    digest = hashlib.sha256()
    step = max(1, _CHUNK // values.itemsize)
    for start in range(0, len(values), step):
        digest.update(np.ascontiguousarray(values[start : start + step]).data)
    return digest.hexdigest()


class Reading:
    """The verification of a store's files, in a daemon thread.

    Attributes:
      directory: of the store.
      trouble: what is wrong, in half a sentence; None if nothing has been found so far.
    """

    def __init__(
        self,
        directory: Path,
        ids: Sequence[str],
        others: Sequence[str],
        vocab_size: int,
        dtype: np.dtype,
        checksums: Mapping[str, str],
    ):
        """Starts the thread.

        Args:
          directory: of the store.
          ids: names of the files of ids, without a header.
          others: names of the other files: arrays, with a header (.npy) or without.
          vocab_size: V; ids must lie below it.
          dtype: of the ids.
          checksums: of each file by its name, from the store's index.
        """
        self.directory = directory
        self.trouble: str | None = None
        self._ids, self._others, self._checksums = ids, others, checksums
        self._vocab_size, self._dtype = vocab_size, dtype
        self._thread = threading.Thread(target=self._read, name="token store", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when all files have been read."""
        self._thread.join()

    def _read(self) -> None:
        try:
            for name in self._ids:
                self._compare(name, self._checksum(name, self._check_ids))
            for name in self._others:
                if name.endswith(".npy"):
                    array = np.load(self.directory / name, mmap_mode="r")
                    self._compare(name, content_checksum(array))
                else:
                    self._compare(name, self._checksum(name))
        except (ValueError, EOFError, KeyError, OSError) as error:
            self.trouble = str(error)

    def _checksum(self, name: str, check: Callable[[str, bytes], None] | None = None) -> str:
        digest = hashlib.sha256()
        with open(self.directory / name, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                if check is not None:
                    check(name, chunk)
        return digest.hexdigest()

    def _check_ids(self, name: str, chunk: bytes) -> None:
        ids = np.frombuffer(chunk, self._dtype)
        if int(ids.max()) >= self._vocab_size or int(ids.min()) < 0:
            raise ValueError(f"{name} holds ids outside 0..{self._vocab_size - 1}")

    def _compare(self, name: str, checksum: str) -> None:
        if checksum != self._checksums[name]:
            raise ValueError(f"{name} is not what was written: its checksum differs")


_READINGS: dict[tuple, Reading] = {}
_LOCK = threading.Lock()


def read_through(
    directory: Path,
    ids: Sequence[str],
    others: Sequence[str],
    vocab_size: int,
    dtype: np.dtype,
    checksums: Mapping[str, str],
) -> Reading:
    """The `Reading` of a store: finished if the store is small, else in progress.

    A process reads unchanged files only once, although training opens a store several times.

    Args:
      directory, ids, others, vocab_size, dtype, checksums: as of `Reading`.
    """
    states = [(directory / name).stat() for name in (*ids, *others)]
    files = tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states)
    key = (directory.resolve(), files, vocab_size, tuple(sorted(checksums.items())))
    with _LOCK:
        reading = _READINGS.get(key)
        if reading is None:
            reading = Reading(directory, ids, others, vocab_size, dtype, checksums)
            _READINGS[key] = reading
    if sum(state.st_size for state in states) < IN_BACKGROUND:
        reading.wait()
    return reading
