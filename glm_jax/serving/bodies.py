"""Bodies of requests: within a size and a time, and strict JSON, before any route sees them.

The server itself has limits on neither: a body of a gigabyte, or of one byte a minute, would be
waited for.
"""

import asyncio
import email.message

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_jax.serving.errors import ApiError, bad_request
from glm_jax.serving.strict_json import JsonError, parsed


class BodyGuard:
    """Reads the body of each request, checks it, and hands it on as one message."""

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float):
        """Args:
        app: what gets the requests.
        most_bytes: of a body.
        seconds: for the whole of it.
        """
        self._app, self._most, self._seconds = app, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        try:
            headers = dict(scope["headers"])
            check_type(headers.get(b"content-type", b"").decode("latin-1"))
            self._check_length(headers.get(b"content-length", b"0"))
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
            if body is None:
                return None  # the client has gone
            try:
                parsed(body)
            except JsonError as error:
                raise bad_request(str(error), code="invalid_json") from None
        except TimeoutError:
            return await self._refuse(
                ApiError(408, f"the body did not come within {self._seconds:g} s"),
                scope,
                receive,
                send,
            )
        except ApiError as error:
            return await self._refuse(error, scope, receive, send)
        return await self._app(scope, _after(body, receive), send)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        # What is left of the body is not read, so that the connection has no next request.
        await error.response({"Connection": "close"})(scope, receive, send)

    def _check_length(self, said: bytes) -> None:
        if not said.isdigit() or len(said) > 18 or int(said) > self._most:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None: the client has gone before its end."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._most:  # one in chunks says no length
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body must have at most {self._most:,} bytes", code="request_too_large"
        )


def check_type(content_type: str) -> None:
    """Raises ApiError unless a body is said to be JSON.

    A page of another site can send text/plain without asking this server first; JSON it cannot.
    """
    message = email.message.Message()
    message["content-type"] = content_type
    if message.get_content_type() != "application/json":
        raise ApiError(
            415,
            f"the header Content-Type must be application/json; got {content_type[:100]!r}",
            code="unsupported_media_type",
        )


def _after(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body, and then what the client does."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def channel() -> Message:
        return pending.pop() if pending else await receive()

    return channel
