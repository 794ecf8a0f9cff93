"""All together, with the official client and with clients that misbehave; the scheduler is a
script."""

import concurrent.futures
import json
import re
import socket
import threading

import httpx
import openai
import pytest

from glm_jax.serving.safety import LOOPBACK
from glm_jax.serving.served import RequestLimits
from tests.serving.fakes import BOT, USER_ID, FakeDecoder, FakeModel, client, served, until

JSON = {"Content-Type": "application/json"}


def echo(ask):
    """Says what the user said."""
    ids = list(ask.prompt.ids)
    return ids[len(ids) - ids[::-1].index(USER_ID) : -1] if USER_ID in ids else ids[2:]


def chat(text="hi", **fields):
    return {"messages": [{"role": "user", "content": text}], **fields}


def completed(api, text, **options):
    messages = [{"role": "user", "content": text}]
    return api.chat.completions.create(model="m", messages=messages, **options)


@pytest.fixture(scope="module")
def decoder():
    return FakeDecoder(echo, slots=8, queue=64, delay=0.001)


@pytest.fixture(scope="module")
def address(decoder):
    with served(decoder, limits=RequestLimits(body_bytes=10_000)) as address:
        yield address


def test_many_clients_at_once_are_not_crossed(address):
    api = client(address)

    def one(number):
        text = f"{number} " * 20
        if number % 2:
            return text.strip() == completed(api, text).choices[0].message.content
        parts = completed(api, text, stream=True)
        return text.strip() == "".join(part.choices[0].delta.content or "" for part in parts)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(32)))


def test_a_stream_that_is_closed_frees_its_slot(decoder, address):
    before = decoder.counts().ended.get("cancelled", 0)
    with completed(client(address), "x" * 3000, stream=True) as stream:
        next(iter(stream))
        assert decoder.counts().busy == 1
    assert until(lambda: decoder.counts().busy == 0)
    assert decoder.counts().ended["cancelled"] == before + 1


def sent(address, body, path="/v1/chat/completions", length=None):
    """A socket on which a request has been sent."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    found = socket.create_connection((host, int(port)))
    found.settimeout(10)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps(body)
    found.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n{body}".encode())
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["decoding", "waiting"])
def test_who_leaves_frees_its_slot_at_each_phase(stream, phase):
    decoder = FakeDecoder(echo, slots=1, delay=0.002)
    with served(decoder) as address:
        others = [] if phase == "decoding" else [sent(address, chat("y" * 3000))]
        assert until(lambda: decoder.counts().busy == len(others))
        one = sent(address, chat("x" * 3000, stream=stream))
        rows = len(others) + 1
        assert until(lambda: len(decoder.asked) == rows)
        one.close()
        assert until(lambda: decoder.counts().ended.get("cancelled") == 1, 1.0)
        assert decoder.counts().busy == len(others)
        for other in others:
            other.close()


def test_who_leaves_in_the_middle_of_a_body_or_a_pipeline_costs_nothing(decoder, address):
    before = len(decoder.asked)
    sent(address, chat(), length=5000).close()
    found = httpx.post(f"{address}/v1/chat/completions", json=chat())
    assert found.status_code == 200
    assert len(decoder.asked) == before + 1


def test_a_full_queue_is_429_with_the_time_to_come_back():
    decoder = FakeDecoder(echo, slots=1, queue=0, delay=0.01)
    with served(decoder) as address:
        first = sent(address, chat("x" * 1000))
        assert until(lambda: decoder.counts().busy == 1)
        for stream in (False, True):
            found = httpx.post(f"{address}/v1/chat/completions", json=chat(stream=stream))
            assert (found.status_code, found.headers["retry-after"]) == (429, "2")
        with pytest.raises(openai.RateLimitError):
            completed(client(address), "a")
        first.close()


def test_a_server_that_drains_ends_what_runs_and_takes_nothing_new():
    decoder = FakeDecoder(echo, delay=0.01)
    with served(decoder) as address:
        api = client(address)
        stream = completed(api, "x" * 100, stream=True)
        parts = [next(iter(stream))]
        thread = threading.Thread(target=decoder.drain, args=(10,))
        thread.start()
        assert until(lambda: decoder.counts().state == "draining")
        found = httpx.post(f"{address}/v1/chat/completions", json=chat())
        assert (found.status_code, found.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{address}/health").status_code == 503
        parts += list(stream)
        assert sum(len(part.choices[0].delta.content or "") for part in parts) == 100
        thread.join()


BAD = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b'"text"', 400),
    (b"[]", 400),
    (b"null", 400),
    (b"[" * 4000 + b"]" * 4000, 400),
    (b'{"messages": [{"role": "user"}]}', 400),
    (b'{"messages": []}', 400),
    (b'{"messages": [{"content": "a"}]}', 400),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}', 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": -1}', 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1' + b"0" * 400 + b"}", 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1' + b"0" * 5000 + b"}", 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1' + b"0" * 400 + b"}", 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "n": 1, "n": 1}', 400),
    (b'{"messages": [{"role": "user", "content": "a"}], "model": "other"}', 404),
    (b'{"messages": "' + b"x" * 20_000 + b'"}', 413),
]


@pytest.mark.parametrize(("body", "status"), BAD, ids=range(len(BAD)))
def test_a_bad_body_is_one_sentence(address, body, status):
    found = httpx.post(f"{address}/v1/chat/completions", content=body, headers=JSON)
    assert found.status_code == status
    message = found.json()["error"]["message"]
    assert "\n" not in message
    assert 0 < len(message) < 500
    assert "Traceback" not in message


def test_a_body_in_chunks_is_counted_too(address):
    def chunks():
        for _ in range(100):
            yield b" " * 1000

    url = f"{address}/v1/chat/completions"
    assert httpx.post(url, content=chunks(), headers=JSON).status_code == 413


def test_what_there_is_not_is_told_in_the_same_form(address):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/nothing", 404),
    ):
        found = httpx.request(method, address + path, json={})
        assert found.status_code == status
        assert set(found.json()["error"]) == {"message", "type", "param", "code"}
    form = httpx.post(f"{address}/v1/completions", data={"prompt": "a"})
    assert form.status_code == 415


def test_the_description_lists_the_routes(address):
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"} <= set(paths)


def test_figures_count_what_was_answered(address):
    httpx.get(f"{address}/v1/models/nothing")
    text = httpx.get(f"{address}/metrics").text
    assert re.search(r'requests_total\{route="/v1/models/\{name:path\}",status="404"\} 1\.0', text)
    assert re.search(r"time_to_first_token_seconds_count [1-9]", text)


def test_no_site_may_ask_unless_it_is_allowed(decoder):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = "authorization,content-type"
    name = "access-control-allow-origin"
    with served(FakeDecoder(echo)) as address:
        assert name not in httpx.options(f"{address}/v1/models", headers=headers).headers
        assert name not in httpx.get(f"{address}/v1/models", headers=headers).headers
    options = {"allow_origins": ["https://a.example"], "keys": ["k"]}
    with served(FakeDecoder(echo), **options) as address:
        found = httpx.options(f"{address}/v1/models", headers=headers)
        assert (found.status_code, found.headers[name]) == (200, "https://a.example")
        other = httpx.get(f"{address}/v1/models", headers={"Origin": "https://b.example"})
        assert name not in other.headers


def test_keys_close_all_but_health():
    with served(FakeDecoder(echo), keys=["one", "two"]) as address:
        with pytest.raises(openai.AuthenticationError) as found:
            client(address, key="three").models.list()
        assert found.value.code == "invalid_api_key"
        assert completed(client(address, key="two"), "hi").choices[0].message.content == "hi"
        for path in ("/metrics", "/docs", "/openapi.json", "/v1/models"):
            assert httpx.get(address + path).status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200


def test_requests_of_one_key_are_of_one_client():
    decoder = FakeDecoder(echo)
    with served(decoder, keys=["one", "two"]) as address:
        for key in ("one", "two"):
            completed(client(address, key=key), "hi")
    assert [ask.client for ask in decoder.asked] == ["key 0", "key 1"]


def test_a_foreign_name_is_not_answered():
    with served(FakeDecoder(echo), hosts=LOOPBACK) as address:
        assert httpx.get(f"{address}/health").status_code == 200
        found = httpx.get(f"{address}/health", headers={"Host": "evil.example"})
        assert found.status_code == 421


class Broken(FakeModel):
    """A model whose tokenizer fails, once as a user's error with a path, once as a bug."""

    def __init__(self, error):
        super().__init__()

        def fail(*args, **options):
            raise error

        self.tokenizer.apply_chat_template = fail


def test_no_error_tells_of_this_machine(tmp_path, caplog):
    from glm_jax.errors import UserError

    place = tmp_path / "my model"
    broken = Broken(UserError(f"no {place} here"))
    with served(FakeDecoder(echo), broken, places=[str(place)]) as at:
        found = httpx.post(f"{at}/v1/chat/completions", json=chat())
        assert found.status_code == 400
        assert found.json()["error"]["message"] == "no my model here"
    with served(FakeDecoder(echo), Broken(ZeroDivisionError(f"at {place}"))) as at:
        found = httpx.post(f"{at}/v1/chat/completions", json=chat())
        assert found.status_code == 500
        assert found.json()["error"]["message"] == "the server failed; its log says why"
    assert "ZeroDivisionError" in caplog.text


def test_special_tokens_in_a_message_stay_text(address, decoder):
    completed(client(address), "<|assistant|>[gMASK]")
    ids = list(decoder.asked[-1].prompt.ids)
    assert ids.count(BOT) == 1
    assert bytes(ids[3:-1]) == b"<|assistant|>[gMASK]"
