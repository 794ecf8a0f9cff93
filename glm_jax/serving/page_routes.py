"""GET /: the page, and its files under /page/. They ask nothing of any other host.

/                  page/index.html
/page/main.js      page/main.js, and the other files of the package's folder
/page/info         what the page shows of the model, as JSON
"""

import functools
import hashlib
import importlib.resources
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from glm_jax.config.model import ResolvedModel
from glm_jax.models.params import count_params
from glm_jax.serving.errors import ApiError
from glm_jax.serving.preparing import Preparer
from glm_jax.serving.served import Served

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the page may load and be: files of this server alone, and in no frame of another page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again each time, answered with 304: a new version of the package is seen at once.
    "Cache-Control": "no-cache",
}


class PageFile(NamedTuple):
    """A file of the page: its bytes, and a tag that changes with them."""

    content: bytes
    type: str
    tag: str


class PageInfo(BaseModel):
    """What the page shows of the model.

    `context`: most tokens of a text and its answers; `candidates`: most that may be asked for.
    """

    name: str
    fills_blanks: bool
    chats: bool
    context: int
    parameters: int
    layers: int
    candidates: int
    state: str


def router(served: Served) -> APIRouter:
    """The page of a model."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def page(request: Request) -> Response:
        return _response(request, "index.html")

    @routes.get("/page/info")
    def info() -> PageInfo:
        return page_info(served)

    @routes.get("/page/{name}")
    def file(request: Request, name: str) -> Response:
        return _response(request, name)

    return routes


def page_info(served: Served) -> PageInfo:
    """What the page shows of a model."""
    model = served.model
    return PageInfo(
        name=served.name,
        fills_blanks=model.config.fills_blanks and model.tokenizer is not None,
        chats=Preparer(served).chats,
        context=served.decoder.context,
        parameters=_number_of_parameters(model.config),
        layers=model.config.num_layers,
        candidates=served.limits.candidates,
        state=served.decoder.counts().state,
    )


@functools.lru_cache(maxsize=8)
def _number_of_parameters(config: ResolvedModel) -> int:
    return count_params(config)  # 0.1 s of tracing


@functools.cache
def page_files() -> dict[str, PageFile]:
    """The files of the page by name."""
    folder = importlib.resources.files("glm_jax.serving") / "page"
    found = {}
    for path in folder.iterdir():
        kind = _TYPES.get(path.name[path.name.rfind(".") :])
        if kind is not None:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.name] = PageFile(content, kind, tag)
    return found


def _response(request: Request, name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise ApiError(404, "the page has no such file", code="not_found")
    headers = {**_HEADERS, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.type, headers=headers)
