"""The routes of the page alone, with errors as the whole server words them."""

import contextlib
import threading

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from glm_jax.errors import UserError
from glm_jax.serving import blank_routes, page_routes
from glm_jax.serving.asking import ClosingError, FullError
from glm_jax.serving.errors import ApiError, api_error


def small_app(served):
    app = FastAPI()
    app.include_router(blank_routes.router(served))
    app.include_router(page_routes.router(served))
    for kind in (ApiError, FullError, ClosingError, UserError, RequestValidationError):
        app.add_exception_handler(kind, lambda request, error: api_error(error).response())
    return app


@contextlib.contextmanager
def running(app):
    """The app behind a port of this machine; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
