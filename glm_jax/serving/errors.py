"""Errors as OpenAI's API words them: a status, and one sentence without paths or tracebacks.

{"error": {"message": "top_p must be at most 1; got 2", "type": "invalid_request_error",
           "param": "top_p", "code": null}}
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from glm_jax.errors import UserError, short
from glm_jax.serving.asking import ClosingError, FullError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Seconds after which another server may have taken this one's place.
_AFTER_CLOSING = 5.0
# "/a/b/c", but for the routes of this server. Two names at least: "and/or" and "/" are no paths.
_PATH = re.compile(r"(?<![\w.:/~-])(?!/v1/)~?(?:/[\w.@%+~-]+)+/([\w.@%+~-]+)/?")


class ApiError(Exception):
    """What a client is told instead of an answer.

    Attributes:
      status: of HTTP.
      message: one sentence.
      param: the field at fault, "messages[0].content"; None: none, or not known.
      code: a word for programs, "context_length_exceeded".
      retry_after: seconds after which the request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str | None]]:
        """The object of the response."""
        kind = _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The whole response; `headers` come on top of those that the status asks for."""
        found = {} if self.retry_after is None else _retry_after(self.retry_after)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, {**found, **(headers or {})})


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param, code)


def api_error(error: Exception, places: Iterable[str] = ()) -> ApiError:
    """What a client is told of an exception.

    Args:
      error: of any kind; of one that is a bug nothing is told but that.
      places: directories of this machine that a `UserError` may name.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, FullError):
        return ApiError(429, str(error), code="rate_limit_exceeded", retry_after=error.retry_after)
    if isinstance(error, ClosingError):
        return ApiError(
            503, "the server ends and takes no new requests", retry_after=_AFTER_CLOSING
        )
    if isinstance(error, UserError):
        return bad_request(without_paths(str(error), places))
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    return ApiError(500, "the server failed; its log says why", code="internal_error")


def failed() -> ApiError:
    """The scheduler has ended a row by a fault of its own."""
    return ApiError(500, "the server failed while it computed the answer", code="internal_error")


def without_paths(message: str, places: Iterable[str] = ()) -> str:
    """A message in which paths of this machine are cut to their last name.

        "the tokenizer of /home/a/model has no chat format" -> "the tokenizer of model has .."

    Whether a path exists is not asked: else a client could find out what there is.

    Args:
      message: of a `UserError`.
      places: directories whose names may have spaces, which a pattern would not find.
    """
    for place in sorted(filter(None, places), key=len, reverse=True):
        if len(Path(place).parts) > 2:
            message = message.replace(place, Path(place).name)
    return _PATH.sub(r"\1", message)


def _of_validation(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    # A union adds the name of its branch behind the field; a field stands in the body.
    place = [part for part in first["loc"] if part not in ("body", "query", "path")]
    param = _param(place)
    kind, said = first["type"], first["msg"]
    if kind == "refused":  # `glm_jax.serving.neutral.refused`
        named = str(first["ctx"]["param"])
        where = param if param and param.endswith(named) else _param([*place, named])
        prefix = f"{_param(place)}: " if place and where != named else ""
        return bad_request(f"{prefix}{said}", where)
    if kind == "extra_forbidden":
        return bad_request(f"unknown field {short(param)}", param)
    if kind == "missing":
        return bad_request(f"{param or 'a JSON object as the body'} is required", param)
    if kind == "value_error":
        return bad_request(said.removeprefix("Value error, "), param)
    if kind in ("model_attributes_type", "model_type", "dict_type") and not place:
        return bad_request("the body must be a JSON object")
    for theirs in ("Input should", "List should", "String should"):
        said = said.replace(theirs, "must")
    said = said.partition(" after validation")[0]
    return bad_request(f"{param or 'the body'} {said}; got {short(first.get('input'))}", param)


def _param(place: Sequence[object]) -> str | None:
    """("messages", 0, "content") -> "messages[0].content"."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")[:200] or None


def _of_http(error: HTTPException) -> ApiError:
    if error.status_code == 404:
        return ApiError(404, "there is no such page; /docs lists the routes", code="not_found")
    if error.status_code == 405:
        return ApiError(405, "this route has another method; /docs lists the routes")
    status = error.status_code if error.status_code != 422 else 400
    return ApiError(status, str(error.detail))


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
