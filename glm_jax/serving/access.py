"""One line a request in the log, and its count: no header, no body, no query."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_jax.serving.connected import CLIENT_HAS_GONE
from glm_jax.serving.metrics import Metrics

LOGGER = logging.getLogger("glm_jax.serve")
# Of a path, which a client chooses, in the log.
_LONGEST_PATH = 100


class AccessLog:
    """Logs and counts each request when it has ended.

    POST /v1/completions 200 1.204 s 12+16 tokens
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = time.monotonic(), CLIENT_HAS_GONE
        state = scope.setdefault("state", {})

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500
            raise
        finally:
            self._metrics.count(_route(scope), status)
            tokens = state.get("tokens")
            used = f" {tokens[0]}+{tokens[1]} tokens" if tokens else ""
            path = ascii(scope["path"][:_LONGEST_PATH])[1:-1]
            seconds = time.monotonic() - start
            LOGGER.info("%s %s %d %.3f s%s", _method(scope), path, status, seconds, used)


def _route(scope: Scope) -> str:
    """The path as it is declared: a client's own would be counters without end."""
    route = scope.get("route")
    return getattr(route, "path", None) or "other"


def _method(scope: Scope) -> str:
    return ascii(scope["method"][:10])[1:-1]
