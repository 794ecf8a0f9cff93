"""GET /v1/models: the one model that is served, and what it can do."""

import time

from fastapi import APIRouter

from glm_jax.json_files import JsonObject
from glm_jax.serving.preparing import Preparer
from glm_jax.serving.served import Served


def router(served: Served) -> APIRouter:
    """The routes of models."""
    routes, created = APIRouter(tags=["models"]), int(time.time())
    config, preparer = served.model.config, Preparer(served)
    model: JsonObject = {
        "id": served.name,
        "object": "model",
        "created": created,
        "owned_by": "glm_jax",
        "max_model_len": served.decoder.context,
        "can": {
            "chat": preparer.chats,
            "complete": config.continues_texts,
            "fill_blanks": config.fills_blanks,
        },
    }

    @routes.get("/v1/models", summary="List the model")
    async def models() -> JsonObject:
        return {"object": "list", "data": [model]}

    # A name may be a path, as those of the hub are.
    @routes.get("/v1/models/{name:path}", summary="Show the model")
    async def one_model(name: str) -> JsonObject:
        preparer.check_model(name)
        return model

    return routes
