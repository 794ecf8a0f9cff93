"""The application: routes, and around them what every request passes.

log  >  CORS  >  names of this host  >  API keys  >  bodies  >  routes
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

import glm_jax
from glm_jax.errors import UserError
from glm_jax.serving import (
    blank_routes,
    chat_routes,
    completion_routes,
    health_routes,
    model_routes,
    page_routes,
)
from glm_jax.serving.access import AccessLog
from glm_jax.serving.asking import ClosingError, FullError
from glm_jax.serving.bodies import BodyGuard
from glm_jax.serving.documented import documented_app
from glm_jax.serving.errors import ApiError, api_error
from glm_jax.serving.metrics import Metrics
from glm_jax.serving.safety import HostGuard, KeyGuard
from glm_jax.serving.served import Served

# For a whole body to come.
BODY_SECONDS = 60.0


def make_app(
    served: Served,
    keys: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    hosts: Collection[str] = (),
    places: Sequence[str] = (),
    body_seconds: float = BODY_SECONDS,
) -> FastAPI:
    """The application that answers with a model.

    Args:
      served: it, its scheduler, and the limits of a request.
      keys: API keys, of which a request must have one; (): none is needed.
      allow_origins: sites whose pages may ask, "https://a.example", or "*"; (): none but its own.
      hosts: names under which it answers, without the port; (): all.
      places: directories of this machine that no message may name, the checkpoint's among them.
      body_seconds: for a whole body to come.
    """
    app = documented_app()
    metrics = Metrics(served.decoder)
    app.include_router(chat_routes.router(served, metrics))
    app.include_router(completion_routes.router(served, metrics))
    app.include_router(blank_routes.router(served))
    app.include_router(model_routes.router(served))
    app.include_router(health_routes.router(served, metrics))
    app.include_router(page_routes.router(served))
    _tell_errors(app, [*places, *_places_of(served)])
    # The last one is the outermost.
    app.add_middleware(BodyGuard, most_bytes=served.limits.body_bytes, seconds=body_seconds)
    app.add_middleware(KeyGuard, keys=keys)
    app.add_middleware(HostGuard, hosts=hosts)
    if allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    app.add_middleware(AccessLog, metrics=metrics)
    return app


def _tell_errors(app: FastAPI, places: Sequence[str]) -> None:
    """Words every error as OpenAI's API does."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        return api_error(error, places).response()  # the server logs what is a bug

    known = (ApiError, UserError, FullError, ClosingError)
    for kind in (*known, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, told)


def _places_of(served: Served) -> list[str]:
    directory = served.model._origin.directory
    own = [Path(glm_jax.__file__).parents[1], Path.cwd(), Path.home()]
    return [str(place) for place in (directory, *own) if place is not None]
