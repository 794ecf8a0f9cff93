"""GET /docs: the routes with all of their fields, by Swagger UI; nothing is asked of another host.

FastAPI's own page loads the script from a public host. Here the script is a file of the package
fastapi-offline, which the extra "serve" brings.
"""

from fastapi import FastAPI, Response

import glm_jax
from glm_jax.serving.errors import ApiError

_FILES = "/docs/files"


def documented_app() -> FastAPI:
    """An application without routes but /docs and /openapi.json."""
    # Without an address Swagger UI sends no description to its makers' validator.
    shown = {"validatorUrl": None}
    try:
        from fastapi_offline import FastAPIOffline
    except ImportError:
        return _without_a_page()
    return FastAPIOffline(
        title="glm_jax",
        version=glm_jax.__version__,
        redoc_url=None,
        static_url=_FILES,
        favicon_url="/page/icon.svg",
        swagger_ui_parameters=shown,
    )


def _without_a_page() -> FastAPI:
    app = FastAPI(title="glm_jax", version=glm_jax.__version__, docs_url=None, redoc_url=None)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        raise ApiError(
            404,
            "/docs needs the package fastapi-offline, which the extra 'serve' brings; "
            "/openapi.json has the same fields",
        )

    return app
