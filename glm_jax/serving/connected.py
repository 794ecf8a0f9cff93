"""Work for a client that may leave: it is cancelled as soon as the client is gone.

FastAPI cancels no request whose client leaves before the answer; here the channel on which the
client's leaving is told is listened to all the time.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")

# Nobody reads it; the line of the log has it, as that of nginx.
CLIENT_HAS_GONE = 499


class GoneError(Exception):
    """The client has gone."""


async def while_connected(receive: Receive, work: Awaitable[Result]) -> Result:
    """What `work` returns.

    Args:
      receive: the channel of a request whose body has been read.
      work: cancelled when the client leaves.

    Raises:
      GoneError: the client has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise GoneError
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of parts, which ends when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[bytes, None], close: Callable[[], object]):
        """Args:
        parts: of the body.
        close: called at the end, whichever it is, even where no part was asked for.
        """
        # No cache, and no proxy that collects parts.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._parts, self._close = parts, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send))
        except GoneError:
            pass
        finally:
            self._close()
            await self._parts.aclose()

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        async for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answered(request: Request, work: Awaitable[Response]) -> Response:
    """`while_connected` of a request; a client that has left gets an empty response."""
    try:
        return await while_connected(request.receive, work)
    except GoneError:
        return Response(status_code=CLIENT_HAS_GONE)
