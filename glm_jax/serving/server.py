"""A server in its process: the port, uvicorn, and how signals end it.

listen("127.0.0.1", 8000)   before a model is loaded: a port that is taken is said at once
Server(app, ..).run_on(socket)   -> 0 after SIGTERM or Ctrl-C, 130 after a second Ctrl-C,
                                1 where the scheduler has failed
"""

import logging
import signal
import socket
import threading
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from glm_jax.checks import whole_number
from glm_jax.errors import UserError
from glm_jax.serving.asking import Decoder
from glm_jax.serving.patience import PatientProtocol

# For responses to be read to their end when all rows have ended.
_LAST_SECONDS = 5
_INTERRUPTED = 130
_FAILED = 1


class Draining(Decoder, Protocol):
    """A scheduler that can be ended."""

    def drain(self, seconds: float) -> bool:
        """Takes no new rows, and waits for those that there are; False: some have not ended."""

    def close(self) -> None:
        """Ends its thread; rows that have not ended are cancelled. A second time: nothing."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; clients that come before the server does wait.

    Args:
      host: an address or a name of this machine.
      port: 0: any that is free.

    Raises:
      UserError: the port is taken, or this machine has no such address.
    """
    whole_number("port", port, 0, 2**16 - 1)  # the system would take the rest of a division
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        # At once: until one of them listens, two servers could have the same port.
        found.listen(2048)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host} port {port} ({error.strerror}); another --port may be free, "
            "0 takes any"
        ) from error
    return found


def url(listening: socket.socket) -> str:
    """Where a browser of this machine finds a server."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def closes(decoder: Draining, seconds: float = _LAST_SECONDS) -> bool:
    """Closes a scheduler; whether it has ended by then. Nothing can stop what is being compiled."""
    closing = threading.Thread(target=decoder.close, name="close", daemon=True)
    closing.start()
    closing.join(seconds)
    return not closing.is_alive()


class Server(uvicorn.Server):
    """uvicorn, drained by the first signal.

    While it drains, new requests are answered with 503 (`Decoder.submit` raises ClosingError);
    then connections are closed. A second Ctrl-C ends it at once.

    Attributes:
      status: of the process.
    """

    def __init__(self, app: FastAPI, decoder: Draining, drain_seconds: float):
        """Args:
        app: of `make_app`.
        decoder: the scheduler of its model.
        drain_seconds: for rows that are decoded to end.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        self.status = 0
        self._decoder, self._drain_seconds = decoder, drain_seconds
        self._drains: threading.Thread | None = None

    def run_on(self, listening: socket.socket) -> int:
        """Serves until a signal; returns the status of the process."""
        self.run(sockets=[listening])
        return self.status

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal, on the main thread."""
        if self._drains is None:
            self.drain()
        elif sig == signal.SIGINT:
            self.status = _INTERRUPTED
            self.should_exit = self.force_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        if self._decoder.counts().state == "failed":
            self.status = _FAILED
            return True
        return await super().on_tick(counter)

    def drain(self) -> None:
        """Begins the end, in a thread: it waits for the scheduler's."""
        logging.getLogger("glm_jax.serve").info("draining: no new requests")
        self._drains = threading.Thread(target=self._drain, name="drain", daemon=True)
        self._drains.start()

    def _drain(self) -> None:
        try:
            if not self._decoder.drain(self._drain_seconds):
                closes(self._decoder)  # so that clients are told; see `Answer.take`
        finally:
            self.should_exit = True
