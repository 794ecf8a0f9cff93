"""Clients that are silent, broken or do not read, at a real server."""

import json
import socket
import time

import pytest

from glm_jax.serving.patience import PatientProtocol
from glm_jax.serving.server import Server
from tests.serving.fakes import FakeDecoder, FakeModel, served, until


class Impatient(PatientProtocol):
    head_seconds = read_seconds = 0.3


class ImpatientServer(Server):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.config.http = Impatient


def connected(address, buffer=None):
    host, _, port = address.removeprefix("http://").rpartition(":")
    found = socket.socket()
    if buffer is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    found.settimeout(5)
    found.connect((host, int(port)))
    return found


def post(body, path="/v1/completions"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.fixture(scope="module")
def decoder():
    return FakeDecoder(lambda ask: "x" * 100_000, slots=4, context=1 << 20)


@pytest.fixture(scope="module")
def address(decoder):
    model = FakeModel(max_positions=1 << 20)
    with served(decoder, model, server_class=ImpatientServer, body_seconds=0.3) as address:
        yield address


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: a\r\nX-"])
def test_a_head_that_does_not_come_closes_the_connection(address, sent):
    with connected(address) as client:
        client.sendall(sent)
        begin = time.monotonic()
        assert client.recv(1000) == b""
        assert 0.2 < time.monotonic() - begin < 3


def test_so_does_that_of_a_second_request(address):
    with connected(address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in client.recv(1000)
        client.sendall(b"GET /hea")
        while client.recv(1000):
            pass


def test_a_body_byte_by_byte_is_cut_off(address):
    with connected(address) as client:
        client.sendall(post("x" * 50)[:-50])
        for _ in range(2):
            client.sendall(b" ")
            time.sleep(0.1)
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http_is_told_so_in_json(address):
    with connected(address) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b""
        while part := client.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error": {"message": "Invalid HTTP request received."' in answer


def test_who_does_not_read_loses_its_rows(decoder, address):
    """What is written fills the buffers of both sides; then the connection is cut."""
    before = decoder.counts().ended.get("cancelled", 0)
    decoder.delay = 0.0005
    body = {"messages": [{"role": "user", "content": "a"}], "stream": True, "n": 4}
    body |= {"logprobs": True, "top_logprobs": 20}
    with connected(address, buffer=4096) as client:
        client.sendall(post(json.dumps(body), "/v1/chat/completions"))
        assert until(lambda: decoder.counts().ended.get("cancelled", 0) == before + 4, 20)
    decoder.delay = 0.0
    assert until(lambda: decoder.counts().busy == 0)


def test_a_slow_reader_that_reads_gets_all(address):
    with connected(address) as client:
        client.sendall(post('{"prompt": "a", "max_tokens": 300, "stream": true}'))
        text = b""
        while b"[DONE]" not in text:
            text += client.recv(65536)
            time.sleep(0.01)
    assert text.count(b"x") >= 300
