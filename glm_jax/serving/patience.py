"""Connections whose clients are silent, or do not read: they are closed after a while.

uvicorn waits without end for the first byte of a request, for the rest of its headers, and for a
client to read what is written. Bodies have a limit of their own (`glm_jax.serving.bodies`).
"""

import asyncio
import json
from collections.abc import Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from glm_jax.serving.errors import bad_request

# For the headers of a request, from its first byte or the connection's first moment.
HEAD_SECONDS = 30.0
# For a client to read some of what waits for it, 64 kB and what the system holds.
READ_SECONDS = 30.0


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with limits on waiting.

    Attributes:
      head_seconds, read_seconds: the limits; a test shortens them.
    """

    head_seconds, read_seconds = HEAD_SECONDS, READ_SECONDS
    _head: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self._later(self.head_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            _stop(self._head)
            self._head = None
        elif self._head is None and not self.transport.is_closing():
            # Part of a next request: uvicorn has stopped the clock that runs between two.
            self._head = self._later(self.head_seconds, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not close: that would wait until the client has read all.
        self._reading = self._later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _stop(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._head)
        _stop(self._reading)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the form of all errors."""
        body = json.dumps(bad_request(msg).body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _later(self, seconds: float, what: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, what)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
