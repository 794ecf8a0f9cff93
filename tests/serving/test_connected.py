import asyncio

import pytest

from glm_jax.serving.connected import EventStream, GoneError, while_connected


def channel(*messages):
    """A client that sends these, and then nothing."""
    pending = list(messages)

    async def receive():
        if pending:
            return {"type": pending.pop(0)}
        return await asyncio.Event().wait()

    return receive


def test_work_is_done_for_who_stays():
    async def work():
        await asyncio.sleep(0.01)
        return 3

    assert asyncio.run(while_connected(channel("http.request"), work())) == 3


def test_work_for_who_leaves_is_cancelled():
    ends = []

    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(GoneError):
        asyncio.run(while_connected(channel("http.request", "http.disconnect"), work()))
    assert ends == ["cancelled"]


def test_what_work_raises_is_raised():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(while_connected(channel(), work()))


async def stream(receive, parts, close):
    sent = []

    async def send(message):
        sent.append(message)

    await EventStream(parts, close)({"type": "http"}, receive, send)
    return sent


def test_a_stream_ends_with_its_parts():
    closed = []

    async def parts():
        yield b"a"
        yield b"b"

    start, *bodies = asyncio.run(stream(channel(), parts(), lambda: closed.append(1)))
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert [(one["body"], one["more_body"]) for one in bodies] == [
        (b"a", True),
        (b"b", True),
        (b"", False),
    ]
    assert closed == [1]


def test_a_stream_of_who_leaves_is_closed_at_once():
    closed = []

    async def parts():
        try:
            for _ in range(3):
                yield b"a"
                await asyncio.sleep(1)
        finally:
            closed.append("parts")

    leaving = channel("http.request", "http.disconnect")
    asyncio.run(stream(leaving, parts(), lambda: closed.append("rows")))
    assert closed.count("rows") == 1
    # A generator that was never begun has nothing to close; rows are, whether it was or not.
    assert set(closed) <= {"parts", "rows"}
