"""GET /health for who balances load, GET /metrics for Prometheus."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from glm_jax.serving.metrics import Metrics
from glm_jax.serving.served import Served

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def router(served: Served, metrics: Metrics) -> APIRouter:
    """The routes for operators."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health", summary="Whether requests are answered now")
    async def health() -> Response:
        """200 when it is "ready", else 503: "compiling", "draining" or "failed"."""
        counts = served.decoder.counts()
        body = {
            "status": counts.state,
            "slots": counts.slots,
            "busy": counts.busy,
            "waiting": counts.waiting,
        }
        return JSONResponse(body, 200 if counts.state == "ready" else 503)

    @routes.get("/metrics", summary="Figures for Prometheus")
    async def figures() -> Response:
        return Response(metrics.text(), media_type=_PROMETHEUS)

    return routes
