import contextlib
import os
import signal
import threading
import time

import httpx
import pytest

from glm_jax.errors import UserError
from glm_jax.serving.app import make_app
from glm_jax.serving.served import Served
from glm_jax.serving.server import Server, closes, listen, url
from tests.serving.fakes import FakeDecoder, FakeModel, until


def test_a_port_that_is_taken_is_said_in_one_sentence():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1 port {port} .*--port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("203.0.113.7", 0, "cannot listen at 203.0.113.7"),
        ("no.such.host.invalid", 0, "cannot listen at no.such"),
        ("127.0.0.1", 70_000, "port must be at most 65535"),
        ("127.0.0.1", -1, "port must be at least 0"),
    ],
)
def test_so_is_an_address_of_another_machine(host, port, said):
    with pytest.raises(UserError, match=said):
        listen(host, port)


def test_the_address_is_one_that_a_browser_finds():
    with listen("0.0.0.0", 0) as one:
        assert url(one) == f"http://127.0.0.1:{one.getsockname()[1]}"
    with listen("127.0.0.1", 0) as one:
        assert url(one) == f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_scheduler_that_does_not_end_is_not_waited_for():
    class Compiling:
        def close(self):
            threading.Event().wait(10)

    decoder = FakeDecoder(lambda ask: "")
    assert closes(decoder)
    begin = time.monotonic()
    assert not closes(Compiling(), seconds=0.05)
    assert time.monotonic() - begin < 5


def serving(decoder, drain_seconds=5.0):
    """A server on this thread's signals, and its socket."""
    app = make_app(Served(FakeModel(), decoder, "m"))
    return Server(app, decoder, drain_seconds), listen("127.0.0.1", 0)


def beside(work):
    """Runs work in a thread; what it finds is in the list."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return found, thread


BODY = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(sig):
    decoder = FakeDecoder(lambda ask: "x" * 50, delay=0.01)
    server, listening = serving(decoder)

    def work():
        assert until(lambda: server.started)
        answer, thread = beside(
            lambda: httpx.post(f"{url(listening)}/v1/chat/completions", json=BODY, timeout=30)
        )
        assert until(lambda: decoder.counts().busy == 1)
        os.kill(os.getpid(), sig)
        thread.join()
        return answer[0]

    address = url(listening)
    found, thread = beside(work)
    assert server.run_on(listening) == 0
    thread.join()
    assert found[0].json()["choices"][0]["message"]["content"] == "x" * 50
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_rows_that_outlast_the_drain_are_cancelled():
    decoder = FakeDecoder(lambda ask: "x" * 3000, delay=0.01)
    server, listening = serving(decoder, drain_seconds=0.2)

    def work():
        assert until(lambda: server.started)
        answer, thread = beside(
            lambda: httpx.post(f"{url(listening)}/v1/chat/completions", json=BODY, timeout=30)
        )
        assert until(lambda: decoder.counts().busy == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join()
        return answer[0]

    found, thread = beside(work)
    begin = time.monotonic()
    assert server.run_on(listening) == 0
    thread.join()
    assert time.monotonic() - begin < 5
    assert found[0].status_code == 503
    assert "before the answer" in found[0].json()["error"]["message"]


def test_a_second_interrupt_ends_it_at_once():
    decoder = FakeDecoder(lambda ask: "x" * 3000, delay=0.01)
    server, listening = serving(decoder, drain_seconds=60)

    def post():
        with contextlib.suppress(httpx.HTTPError):  # it is cut off
            httpx.post(f"{url(listening)}/v1/chat/completions", json=BODY, timeout=30)

    def work():
        assert until(lambda: server.started)
        beside(post)
        assert until(lambda: decoder.counts().busy == 1)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    _, thread = beside(work)
    begin = time.monotonic()
    assert server.run_on(listening) == 130
    assert time.monotonic() - begin < 10
    thread.join()


def test_a_scheduler_that_fails_ends_the_server():
    decoder = FakeDecoder(lambda ask: "")
    server, listening = serving(decoder)

    def fail():
        assert until(lambda: server.started)
        decoder.state = "failed"

    _, thread = beside(fail)
    assert server.run_on(listening) == 1
    thread.join()
