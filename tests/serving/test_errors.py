import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from glm_jax.errors import UserError
from glm_jax.serving.asking import ClosingError, FullError
from glm_jax.serving.errors import ApiError, api_error, failed, without_paths


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (ApiError(404, "no", "model", "model_not_found"), 404, "invalid_request_error",
         "model_not_found"),
        (UserError("top_p must be at most 1; got 2"), 400, "invalid_request_error", None),
        (FullError(2.5), 429, "rate_limit_error", "rate_limit_exceeded"),
        (ClosingError(), 503, "server_error", None),
        (HTTPException(404), 404, "invalid_request_error", "not_found"),
        (HTTPException(405), 405, "invalid_request_error", None),
        (HTTPException(422, "x"), 400, "invalid_request_error", None),
        (ZeroDivisionError("secret"), 500, "server_error", "internal_error"),
        (failed(), 500, "server_error", "internal_error"),
        (ApiError(401, "key"), 401, "authentication_error", None),
    ],
)  # fmt: skip
def test_errors_have_openai_s_form(error, status, kind, code):
    found = api_error(error)
    assert found.status == status
    body = found.body()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["type"], body["code"]) == (kind, code)
    assert "secret" not in body["message"]


def test_headers_say_when_to_come_back_and_what_is_missing():
    assert api_error(FullError(2.5)).response().headers["retry-after"] == "3"
    assert api_error(ClosingError()).response().headers["retry-after"] == "5"
    assert ApiError(401, "key").response().headers["www-authenticate"] == "Bearer"
    assert "retry-after" not in ApiError(400, "x").response().headers


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the tokenizer of /srv/a b/model has no", "the tokenizer of model has no"),
        ("cannot read /data/x/config.json: gone", "cannot read config.json: gone"),
        ("in '~/models/glm/' there is", "in 'glm' there is"),
        ("ask /v1/blanks or /v1/chat/completions", "ask /v1/blanks or /v1/chat/completions"),
        ("and/or, a / b, 1/2/3, x:/y", "and/or, a / b, 1/2/3, x:/y"),
    ],
)
def test_paths_of_this_machine_are_cut_to_their_last_name(message, expected):
    assert without_paths(message, ["/srv/a b/model", "/srv/a b", "/", ""]) == expected


def test_a_user_error_loses_its_paths():
    error = UserError("no chat_template.jinja in /srv/models/glm4")
    assert api_error(error).message == "no chat_template.jinja in glm4"


def test_errors_of_validation_name_their_field_in_one_sentence():
    from fastapi.exceptions import RequestValidationError
    from fastapi.testclient import TestClient

    from glm_jax.serving.protocol import ChatRequest

    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def told(request, error):
        return api_error(error).response()

    @app.post("/")
    async def root(body: ChatRequest):
        return {}

    def refused(**body):
        found = TestClient(app).post("/", json=body)
        assert found.status_code == 400
        error = found.json()["error"]
        return error["message"], error["param"]

    user = {"role": "user", "content": "a"}
    assert refused() == ("messages is required", "messages")
    assert refused(messages=[]) == ("messages must have at least 1 item; got []", "messages")
    assert refused(messages=[{"role": "x", "content": ""}]) == (
        "messages[0].role must be 'system', 'developer', 'user', 'assistant' or 'tool'; got 'x'",
        "messages[0].role",
    )
    assert refused(messages=[user, {"role": "user"}]) == (
        "messages[1]: a message of 'user' must have a content",
        "messages[1].content",
    )
    assert refused(messages=[user], max_tokens="5") == (
        "max_tokens must be a valid integer; got '5'",
        "max_tokens",
    )
    assert refused(messages=[user], temprature=1) == (
        "unknown field 'temprature' (did you mean 'temperature'?)",
        "temprature",
    )
    assert refused(messages=[{**user, "size": 1}]) == (
        "messages[0]: unknown field 'size'",
        "messages[0].size",
    )
    assert TestClient(app).post("/", json=[1]).json()["error"]["message"] == (
        "the body must be a JSON object"
    )
