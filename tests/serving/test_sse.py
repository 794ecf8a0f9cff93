import asyncio

from glm_jax.errors import UserError
from glm_jax.serving.sse import DONE, event, events


def collected(*values, error=None):
    async def given():
        for value in values:
            yield value
        if error is not None:
            raise error

    async def main():
        return [part async for part in events(given())]

    return asyncio.run(main())


def test_events_have_the_exact_form():
    assert event({"a": "床\n"}) == 'data: {"a": "床\\n"}\n\n'.encode()
    assert collected(1, 2) == [b"data: 1\n\n", b"data: 2\n\n", DONE]
    assert DONE == b"data: [DONE]\n\n"


def test_an_error_is_the_last_event():
    first, last = collected(1, error=UserError("no chat template in /data/x/model"))
    assert first == b"data: 1\n\n"
    assert b'{"error": {"message": "no chat template in model"' in last


def test_a_bug_is_logged_and_not_told(caplog):
    (last,) = collected(error=ZeroDivisionError("secret"))
    assert b"internal_error" in last
    assert b"secret" not in last
    assert "ZeroDivisionError: secret" in caplog.text
