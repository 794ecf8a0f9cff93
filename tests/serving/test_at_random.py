"""Hundreds of requests drawn at random: each is answered or refused, and nothing is left behind."""

import collections
import concurrent.futures
import gc
import json
import resource
from pathlib import Path

import httpx
import pytest

from glm_jax.serving.scheduler import Scheduler
from glm_jax.serving.served import RequestLimits
from tests.generation.chat_stand_ins import model
from tests.serving.fakes import Bytes, FakeDecoder, served, until
from tests.serving.requests_at_random import request

FINE = {200, 400, 404, 413, 415, 429}


def answer(client, seed):
    """The status of a request; its body is read and looked at."""
    route, data, headers = request(seed)
    with client.stream("POST", route, content=data, headers=headers) as found:
        text = found.read().decode()
    assert found.status_code in FINE, (seed, found.status_code, text, data[:300])
    if found.status_code != 200:
        error = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert 0 < len(error["message"]) < 1000, (seed, error)
        assert "Traceback" not in text
        assert "\n" not in error["message"], (seed, error)
    elif found.headers["content-type"].startswith("text/event-stream"):
        assert text.endswith("data: [DONE]\n\n"), (seed, text[-300:])
    else:
        assert json.loads(text)["choices"], seed
    return found.status_code


def answers(address, seeds, clients):
    """How many requests had each status."""
    with (
        httpx.Client(base_url=address, timeout=120) as client,
        concurrent.futures.ThreadPoolExecutor(clients) as pool,
    ):
        return collections.Counter(pool.map(lambda seed: answer(client, seed), seeds))


def test_no_request_fails_and_no_row_is_left():
    decoder = FakeDecoder(lambda ask: "abcdef 床", slots=16, queue=1000)
    limits = RequestLimits(body_bytes=20_000)
    with served(decoder, limits=limits) as address:
        found = answers(address, range(600), clients=8)
        assert until(lambda: not decoder._rows)
    assert found[200] > 100, found
    assert found[400] > 100, found


def memory():
    """Megabytes that this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.nightly
def test_ten_thousand_requests_at_a_model():
    """Nothing fails, no slot stays busy, and memory stays what it was."""
    lm = model(Bytes())
    scheduler = Scheduler(lm, slots=8, queue=64)
    scheduler.start()
    with served(scheduler, lm, limits=RequestLimits(body_bytes=20_000)) as address:
        assert until(lambda: scheduler.counts().state == "ready", 600)
        found = answers(address, range(2000), clients=16)
        before = memory()
        found += answers(address, range(2000, 10_000), clients=16)
        after = memory()
        assert until(lambda: scheduler.counts().busy + scheduler.counts().waiting == 0)
    print(f"\n{dict(found)}; {before:.0f} MB after 2,000 requests, {after:.0f} MB after 10,000")
    assert sum(found.values()) == 10_000
    assert after < before + 50
