import asyncio
import json

import pytest

from glm_jax.serving.bodies import BodyGuard, check_type
from glm_jax.serving.errors import ApiError

JSON = b"application/json"


def respond(*messages, length=None, kind=JSON, method="POST", seconds=5.0, most=100):
    """(status, the body that the app got, the answer) of a request sent in these messages."""
    headers = [(b"content-type", kind)]
    headers += [(b"content-length", length)] if length is not None else []
    scope = {"type": "http", "method": method, "headers": headers}
    pending, got, sent = list(messages), [], []

    async def receive():
        if not pending:
            return await asyncio.Event().wait()
        one = pending.pop(0)
        if one is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": one, "more_body": bool(pending)}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        message = await receive()
        got.append((message["body"], message["more_body"]))
        await send({"type": "http.response.start", "status": 200})

    asyncio.run(BodyGuard(app, most, seconds)(scope, receive, send))
    status = sent[0]["status"] if sent else None
    return status, got, sent


def test_a_body_is_handed_on_whole():
    assert respond(b'{"a', b'": 1}')[:2] == (200, [(b'{"a": 1}', False)])
    assert respond(b"", method="GET")[:2] == (200, [(b"", False)])


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff", b"[" * 90])
def test_what_is_no_strict_json_reaches_no_route(body):
    status, got, sent = respond(body)
    assert (status, got) == (400, [])
    assert json.loads(sent[1]["body"])["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("length", [b"101", b"9" * 30, b"-1", b"1e9", b""])
def test_a_length_beyond_the_limit_is_refused_before_it_is_read(length):
    status, got, sent = respond(length=length)
    assert (status, got) == (413, [])
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_body_that_grows_beyond_the_limit_is_refused():
    assert respond(*[b'"' + b"x" * 30] * 4)[0] == 413


def test_a_body_that_does_not_come_is_cut_off():
    async def main():
        never = asyncio.Event()
        sent = []

        async def receive():
            await never.wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", JSON)]}
        await BodyGuard(None, 100, 0.05)(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(main()) == 408


def test_who_leaves_is_answered_nothing():
    assert respond(b"{", None) == (None, [], [])


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_said_to_be_json(kind):
    check_type(kind)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_what_a_form_of_another_site_can_send_is_refused(kind):
    with pytest.raises(ApiError) as found:
        check_type(kind)
    assert found.value.status == 415
