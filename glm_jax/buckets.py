"""Paths in a bucket, `gs://BUCKET/KEY`, with those methods of `pathlib.Path` that are used here.

    expanded("gs://b/runs/one") / "run.json"    .exists()  .read_text()  .rename(..)  .stat()

A bucket has no directories (one is there while an object lies below it), no append, no rename (each
object is copied, then removed), no locks and no fsync. An object is written whole or not at all.

A `BucketPath` is no `os.PathLike` (`glm_jax.remote`), for `Path("gs://b/a")` is a directory "gs:".

Errors of the libraries below (gcsfs, tensorstore, google.auth) become `OSError`s of the same
meaning (`os_error`). The first use of a bucket raises a `UserError` where it cannot be used.
"""

import contextlib
import errno
import fnmatch
import functools
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from glm_jax.errors import UserError, how_to_install
from glm_jax.platforms import keep_paths_from_tensorflow
from glm_jax.remote import RemotePath

if TYPE_CHECKING:
    import fsspec

# "gs:/b" is what pathlib makes of "gs://b".
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(gs|s3):/")
_SCHEME = "gs"
# Of the libraries whose errors are not the system's.
_PACKAGES = ("aiohttp", "gcsfs", "google", "requests")
# tensorstore, which reads and writes the arrays of checkpoints, raises ValueError and the like.
_HTTP = re.compile(r"http_response_code='(\d{3})'|CURL error")
_NO_CREDENTIALS = (
    "no credentials that it takes were found; `gcloud auth application-default login` makes some, "
    "or GOOGLE_APPLICATION_CREDENTIALS names a file of them"
)
_NO_RIGHT = "the account has no right to do this there (roles/storage.objectUser has all)"
# By the code of HTTP.
_MEANINGS = {
    "401": (errno.EACCES, _NO_CREDENTIALS),
    "403": (errno.EACCES, _NO_RIGHT),
    "404": (errno.ENOENT, os.strerror(errno.ENOENT)),
    "412": (errno.EEXIST, os.strerror(errno.EEXIST)),
}


def is_url(path: object) -> bool:
    """Whether a path is a URL, such as "gs://bucket/run", or was one before pathlib had it."""
    return isinstance(path, BucketPath) or bool(_URL.match(str(path)))


class BucketPath(RemotePath):
    """A path in a bucket; methods are those of `pathlib.Path` unless they say more."""

    def __init__(self, url: str):
        """Asks nothing of the bucket.

        Raises:
          UserError: not gs://BUCKET or gs://BUCKET/KEY.
        """
        scheme, separator, rest = url.partition("://")
        if not separator:
            raise UserError(f"{url!r} was a URL before it was a Path; give it as a str")
        if scheme != _SCHEME:
            raise UserError(f"{url!r}: of buckets only {_SCHEME}:// is read and written")
        if not rest.strip("/"):
            raise UserError(f"{url!r} names no bucket; give gs://BUCKET/NAME")
        self._key = PurePosixPath(rest.strip("/"))

    # What is known without asking.

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self._key.parts[0]

    @property
    def key(self) -> str:
        """The name of the object in its bucket."""
        return "/".join(self._key.parts[1:])

    @property
    def name(self) -> str:
        return self._key.name

    @property
    def stem(self) -> str:
        return self._key.stem

    @property
    def suffix(self) -> str:
        return self._key.suffix

    @property
    def parent(self) -> "BucketPath":
        """The bucket itself is its own parent."""
        return self if len(self._key.parts) == 1 else self._with(self._key.parent)

    @property
    def parents(self) -> "list[BucketPath]":
        return [self._with(PurePosixPath(*self._key.parts[:n])) for n in self._depths()]

    def with_name(self, name: str) -> "BucketPath":
        return self._with(self._key.with_name(name))

    def absolute(self) -> "BucketPath":
        return self

    def is_relative_to(self, other: object) -> bool:
        return isinstance(other, BucketPath) and self._key.is_relative_to(other._key)

    def __truediv__(self, name: str) -> "BucketPath":
        return self._with(self._key / name)

    def __str__(self) -> str:
        return f"{_SCHEME}://{self._key}"

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: "BucketPath") -> bool:
        return self._key < other._key

    def _with(self, key: PurePosixPath) -> "BucketPath":
        return BucketPath(f"{_SCHEME}://{key}")

    def _depths(self) -> range:
        return range(len(self._key.parts) - 1, 0, -1)

    # Questions.

    def exists(self) -> bool:
        return self._kind() is not None

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether an object lies below it."""
        return self._kind() == "directory"

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> os.stat_result:
        """Knows the size alone."""
        with self._asking() as fs:
            return os.stat_result((0, 0, 0, 0, 0, 0, fs.info(str(self))["size"], 0, 0, 0))

    def iterdir(self) -> "Iterator[BucketPath]":
        with self._asking() as fs:
            found = fs.ls(str(self), detail=False)
        for name in sorted(PurePosixPath(name).name for name in found):
            if name != self.name or f"{self._key}/{name}" in found:
                yield self / name

    def glob(self, pattern: str) -> "Iterator[BucketPath]":
        """Of one level; nothing where there is no such directory."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from (one for one in self.iterdir() if fnmatch.fnmatchcase(one.name, pattern))

    def below(self) -> dict[str, dict[str, object]]:
        with self._asking() as fs:
            found = fs.find(str(self), detail=True)
        start = f"{self._key}/"
        names = sorted(name for name in found if name.startswith(start) and name[-1] != "/")
        return {name.removeprefix(start): found[name] for name in names}

    def _kind(self) -> str | None:
        try:
            with self._asking() as fs:
                return str(fs.info(str(self))["type"])
        except FileNotFoundError:
            return None

    # Content.

    def read_bytes(self) -> bytes:
        with self._asking() as fs:
            return fs.cat_file(str(self))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self._asking() as fs:
            fs.pipe_file(str(self), content)

    def write_text(self, content: str, encoding: str = "utf-8") -> None:
        self.write_bytes(content.encode(encoding))

    @contextlib.contextmanager
    def open(self, mode: str = "rb") -> Iterator[IO[bytes]]:
        """For reading bytes, piece by piece."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"mode {mode!r} in a bucket")
        with self._asking() as fs, fs.open(str(self), mode) as file:
            yield file

    def download(self, target: Path) -> None:
        with self._asking() as fs:
            fs.get_file(str(self), str(target))

    def upload(self, source: Path) -> None:
        with self._asking() as fs:
            fs.put_file(str(source), str(self))

    # Changes.

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes nothing: a directory is there as soon as something lies in it."""
        if not exist_ok and self.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._asking() as fs:
                fs.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: "BucketPath") -> "BucketPath":
        """Copies each object, inside the bucket, then removes them; a kill leaves both."""
        names = list(self.below())
        pairs = [(self / name, target / name) for name in names] or [(self, target)]
        with self._asking() as fs:
            fs.copy([str(one) for one, _ in pairs], [str(other) for _, other in pairs])
            fs.rm([str(one) for one, _ in pairs])
        return target

    def remove_below(self) -> None:
        names = list(self.below())
        if names:
            with self._asking() as fs:
                fs.rm([str(self / name) for name in names])

    @contextlib.contextmanager
    def _asking(self) -> "Iterator[fsspec.AbstractFileSystem]":
        """Context in which errors of the libraries become the system's."""
        _check(self.bucket, str(self))
        with as_os_errors(str(self)):
            yield _file_system()


def os_error(error: BaseException, where: str = "") -> OSError | None:
    """The system's error that one of a bucket's libraries means; None for errors of others.

    A missing object is ENOENT, missing credentials and rights are EACCES, all else is EIO. Its text
    (`strerror`) is a clause for a person.
    """
    module, text = type(error).__module__, str(error)
    is_theirs = module.partition(".")[0] in _PACKAGES
    if isinstance(error, OSError) and error.errno is not None and not is_theirs:
        return None
    code = str(getattr(error, "code", ""))
    if tensorstore := _HTTP.search(text):
        code = tensorstore[1] or "503"
    elif text.startswith("Forbidden: ") and type(error) is OSError:  # gcsfs
        code = "403"
    elif isinstance(error, FileNotFoundError):
        code = "404"
    elif isinstance(error, FileExistsError):
        code = "412"
    elif module.startswith("google.auth"):
        code = "401"
    elif not is_theirs:
        return None
    if code in _MEANINGS:
        return OSError(*_MEANINGS[code], where)
    return _no_answer(error, where)


def _no_answer(error: BaseException, where: str) -> OSError:
    said = str(error).partition("\n")[0][:200] or type(error).__name__
    return OSError(errno.EIO, f"the bucket does not answer as it should: {said}", where)


@contextlib.contextmanager
def as_os_errors(where: str) -> Iterator[None]:
    """Context in which errors of a bucket's libraries become `OSError`s."""
    try:
        yield
    except Exception as error:
        found = os_error(error, where)
        if found is None and isinstance(error, ConnectionError | TimeoutError):
            found = _no_answer(error, where)
        if found is None:
            raise
        raise found from error


def _check(bucket: str, where: str) -> None:
    """Refuses a bucket that cannot be listed; asked once per process and bucket.

    Raises:
      UserError: gcsfs is not installed, there is no such bucket, no credentials or no right.
    """
    if bucket in _USABLE:
        return
    fs = _file_system()
    try:
        with as_os_errors(where):
            fs.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
    except FileNotFoundError as error:
        raise UserError(f"{where!r} cannot be used: there is no bucket {bucket!r}") from error
    except OSError as error:
        raise UserError(f"{where!r} cannot be used: {error.strerror}") from error
    _USABLE.add(bucket)


_USABLE: set[str] = set()


@functools.cache
def _file_system() -> "fsspec.AbstractFileSystem":
    """gcsfs, which finds credentials by itself, as google.auth does."""
    # Otherwise gcsfs asks for the kind of each bucket by gRPC, and waits a minute where none
    # answers.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    keep_paths_from_tensorflow()
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"paths in a bucket need the package gcsfs; install it with: {how_to_install('gcs')}"
        ) from error
    # Others write there too: what was listed a while ago says nothing.
    fsspec.config.conf.setdefault("gs", {}).setdefault("use_listings_cache", False)
    # What it logs with a traceback it raises as well.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return fsspec.filesystem("gs")
