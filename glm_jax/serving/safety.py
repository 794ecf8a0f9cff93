"""Who may ask: API keys, and the names under which a server of this machine alone is called."""

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from glm_jax.errors import UserError
from glm_jax.serving.errors import ApiError

# Open to all, keys or not: whether the server lives, and the page, which asks for a key itself.
OPEN = ("/", "/health")
PAGE_FILES = "/page/"
# Holds API keys.
VARIABLE = "GLM_JAX_API_KEYS"
# Under which names a browser of this machine finds this machine.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class KeyGuard:
    """Answers requests without a valid key with 401, but for what is `OPEN`.

    Keys are compared as SHA-256, each with all that are valid, so that the time says nothing about
    how much of a key was right.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]):
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = scope["client"][0] if scope.get("client") else ""
            scope.setdefault("state", {})["client"] = host
            if self._digests and not is_open(scope["path"]):
                holder = self._holder(dict(scope["headers"]).get(b"authorization", b""))
                if holder is None:
                    return await _unknown().response()(scope, receive, send)
                scope["state"]["client"] = f"key {holder}"
        return await self._app(scope, receive, send)

    def _holder(self, header: bytes) -> int | None:
        """The index of the key in an Authorization header; None: there is no valid one."""
        scheme, _, key = header.decode("latin-1").partition(" ")
        given, found = _digest(key.strip()), None
        for index, digest in enumerate(self._digests):
            if hmac.compare_digest(given, digest):
                found = index
        return found if scheme.lower() == "bearer" else None


class HostGuard:
    """Answers requests under a foreign name with 421.

    A page of another site may have its own name point to 127.0.0.1 (DNS rebinding); the browser
    then takes this server for that site, and lets the page read it.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]):
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self._hosts:
                error = ApiError(
                    421,
                    "this server answers under the names of this machine alone, localhost and "
                    "127.0.0.1; start it with --host or an API key for others",
                )
                return await error.response()(scope, receive, send)
        return await self._app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path is served without a key."""
    return path in OPEN or path.startswith(PAGE_FILES)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _unknown() -> ApiError:
    return ApiError(
        401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key"
    )


def keys_from(file: Path | None, environment: Mapping[str, str]) -> list[str]:
    """The API keys of a file, one a line, and of the variable `VARIABLE`, with spaces between them.

    On a command line every user of the machine would see them (`ps`).

    Args:
      file: lines that are empty or begin with # are left out; None: no file.
      environment: of the process.

    Raises:
      UserError: the file cannot be read or has none, or one that no header can hold.
    """
    keys = environment.get(VARIABLE, "").split()
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read --api_key_file {file}: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UserError(f"--api_key_file {file} holds no key; write one a line")
        keys += found
    for number, key in enumerate(keys, 1):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"API key {number} must be of ASCII letters, digits and signs")
    return keys
