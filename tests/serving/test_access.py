import asyncio
import logging

import pytest

from glm_jax.serving.access import AccessLog
from glm_jax.serving.metrics import Metrics
from tests.serving.fakes import FakeDecoder, say


class Route:
    path = "/v1/things/{name}"


def passed(app, caplog, path="/v1/things/a"):
    """The line of the log, and the figures, of one request."""
    metrics = Metrics(FakeDecoder(say("")))
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"key=secret",
        "headers": [(b"authorization", b"Bearer secret")],
    }

    async def send(message):
        pass

    with caplog.at_level(logging.INFO, "glm_jax.serve"):
        try:
            asyncio.run(AccessLog(app, metrics)(scope, None, send))
        finally:
            figures = metrics.text().decode()
    return caplog.records[-1].getMessage(), figures


async def answering(scope, receive, send):
    scope["route"] = Route
    scope["state"]["tokens"] = (12, 34)
    await send({"type": "http.response.start", "status": 201})


def test_a_request_is_one_line_without_what_is_secret(caplog):
    line, figures = passed(answering, caplog)
    assert line.startswith("POST /v1/things/a 201 0.")
    assert line.endswith(" s 12+34 tokens")
    assert "secret" not in line
    assert 'requests_total{route="/v1/things/{name}",status="201"} 1.0' in figures


def test_a_path_breaks_no_line_and_makes_no_counter(caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})

    line, figures = passed(app, caplog, "/a\n\x1b[31m" + "x" * 500)
    assert line.startswith("POST /a\\n\\x1b[31mxxx")
    assert "\n" not in line
    assert len(line) < 200
    assert 'route="other",status="404"' in figures


def test_who_leaves_is_499(caplog):
    async def app(scope, receive, send):
        pass

    assert " 499 " in passed(app, caplog)[0]


def test_a_bug_is_500(caplog):
    async def app(scope, receive, send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        passed(app, caplog)
    assert " 500 " in caplog.records[-1].getMessage()
