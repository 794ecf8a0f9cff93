import asyncio

import pytest

from glm_jax.errors import UserError
from glm_jax.serving.safety import LOOPBACK, HostGuard, KeyGuard, is_open, keys_from


def status(guard, path="/v1/models", **headers):
    """(status, whose request it was) of a request that a guard looks at."""
    scope = {
        "type": "http",
        "path": path,
        "client": ("9.9.9.9", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent = []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    asyncio.run(guard(app)(scope, None, send))
    return sent[0]["status"], scope.get("state", {}).get("client")


def with_keys(*keys):
    return lambda app: KeyGuard(app, keys)


def test_a_request_needs_one_of_the_keys():
    guard = with_keys("first-key", "second-key")
    assert status(guard, authorization="Bearer first-key") == (200, "key 0")
    assert status(guard, authorization="bearer second-key") == (200, "key 1")
    wrong = ["", "Bearer", "Bearer first", "Bearer first-key2", "Basic first-key", "first-key"]
    for header in wrong:
        assert status(guard, authorization=header)[0] == 401
    assert status(guard)[0] == 401


def test_without_keys_a_client_is_its_address():
    assert status(with_keys()) == (200, "9.9.9.9")


@pytest.mark.parametrize("path", ["/", "/health", "/page/main.js"])
def test_the_page_and_health_are_open(path):
    assert is_open(path)
    assert status(with_keys("k"), path)[0] == 200


@pytest.mark.parametrize(
    "path", ["/metrics", "/docs", "/openapi.json", "/v1/blanks", "//", "/pages"]
)
def test_all_else_is_closed(path):
    assert not is_open(path)
    assert status(with_keys("k"), path)[0] == 401


def local(app):
    return HostGuard(app, LOOPBACK)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "[::1]"]
)
def test_this_machine_is_found_under_its_own_names(host):
    assert status(local, host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8000", "localhost.evil.example"]
)
def test_a_foreign_name_is_refused(host):
    assert status(local, host=host)[0] == 421
    assert status(lambda app: HostGuard(app, ()), host=host)[0] == 200


def test_keys_come_from_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nabc\n\n def \n")
    assert keys_from(file, {}) == ["abc", "def"]
    assert keys_from(file, {"GLM_JAX_API_KEYS": " x  y "}) == ["x", "y", "abc", "def"]
    assert keys_from(None, {}) == []


@pytest.mark.parametrize("content", ["", "# nothing\n", "ключ\n", "a b\n", None])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="key"):
        keys_from(file, {})
