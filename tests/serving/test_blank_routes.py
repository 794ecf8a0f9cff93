"""POST /v1/blanks over HTTP: answers, errors as one sentence, and clients that leave."""

import http.client
import json

import pytest
from fastapi.testclient import TestClient

from glm_jax.serving.app import make_app
from glm_jax.serving.asking import ClosingError, Ended, FullError
from glm_jax.serving.served import RequestLimits, Served
from tests.serving import fakes
from tests.serving.small_models import decoder_of, small_filler

TEXT = "the [MASK] of the king was [MASK]."


@pytest.fixture(scope="module")
def lm():
    return small_filler()


@pytest.fixture(scope="module")
def decoder(lm):
    decoder = decoder_of(lm, 256)
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def served(lm, decoder):
    return Served(lm, decoder, "small", RequestLimits(candidates=3))


@pytest.fixture(scope="module")
def client(served):
    return TestClient(make_app(served))


def ask(client, **body):
    answer = client.post("/v1/blanks", json={"text": TEXT, "max_tokens": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_filled_text(client, lm):
    answer = ask(client)
    (result,) = answer["results"]
    (filling,) = result["fillings"]
    ids = lm.tokenizer.encode(f"[CLS]{TEXT}", allow_special=True)
    expected = lm.fill_blanks([*ids, lm.special.eos], max_new_tokens=3)
    assert filling["text"] == lm.fill(TEXT, max_new_tokens=3)
    assert [one["text"] for one in filling["answers"]] == [
        lm.tokenizer.decode([lm.special.mask, *answer], skip_special=True).strip()
        for answer in expected
    ]
    assert filling["order"] == [0, 1]
    both = [one["probability"] for one in filling["answers"]]
    assert filling["probability"] == pytest.approx(both[0] * both[1])
    assert "tokens" not in result
    assert "tokens" not in filling["answers"][0]
    assert (answer["object"], answer["model"]) == ("blanks", "small")
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(ids) + 1
    ends = sum(one["finish_reason"] == "stop" for one in filling["answers"])
    assert usage["completion_tokens"] == sum(map(len, expected)) + ends
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_several_texts_orders_and_draws(client):
    answer = ask(client, text=[TEXT, "a [MASK]"], order="all", n=2, temperature=1.0)
    first, second = answer["results"]
    assert [(one["order"], one["index"]) for one in first["fillings"]] == [
        ([0, 1], 0),
        ([0, 1], 1),
        ([1, 0], 0),
        ([1, 0], 1),
    ]
    assert len(second["fillings"]) == 2
    assert first["fillings"][0]["text"] != first["fillings"][1]["text"]


def test_tokens_with_alternatives(client):
    (result,) = ask(client, logprobs=2)["results"]
    assert [one["text"] for one in result["tokens"]][:3] == ["[CLS]", " the", "[MASK]"]
    token = result["fillings"][0]["answers"][0]["tokens"][0]
    assert token["alternatives"][0]["id"] == token["id"]  # greedy
    assert token["alternatives"][0]["probability"] == pytest.approx(token["probability"])
    assert len(token["alternatives"]) == 2


def test_candidates(client):
    answer = ask(client, candidates=2)
    first, second = answer["results"][0]["candidates"]
    assert first["probability"] >= second["probability"] > 0
    assert first["answers"] != second["answers"]
    for one in (first, second):
        assert one["text"].startswith("the")
        assert all(part in one["text"] for part in (*one["answers"], " of the king was"))
    assert "fillings" not in answer["results"][0]
    assert answer["usage"]["completion_tokens"] >= 4  # ends at least


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"text": "no blank"}, 400, "no blank in the text"),
        ({"order": [1]}, 400, "order must hold each of the 2 blanks of text 0 once"),
        ({"order": "some"}, 400, "order must be a list of the numbers of blanks"),
        ({"candidates": 4}, 400, "candidates must be at most 3; got 4"),
        ({"text": 7}, 400, "text must be a text, or a list of parts"),
        ({"model": "other"}, 404, "there is no model 'other' here; there is 'small'"),
        ({"temprature": 1}, 400, "temprature"),
    ],
)
def test_errors_are_one_sentence(client, body, status, sentence):
    answer = client.post("/v1/blanks", json={"text": TEXT, **body})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert sentence in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_full_server_and_one_that_ends(client, decoder):
    for error, status in ((FullError(7.0), 429), (ClosingError(), 503)):
        for body in ({}, {"candidates": 1}):
            decoder.refuse = error
            answer = client.post("/v1/blanks", json={"text": TEXT, **body})
            assert answer.status_code == status
            assert int(answer.headers["retry-after"]) == (7 if status == 429 else 5)


def test_rows_of_a_client_that_leaves_are_cancelled(lm):
    decoder = decoder_of(lm, 256)
    decoder.delay = 0.02
    with fakes.served(decoder, lm, "small") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
        body = json.dumps({"text": TEXT, "max_tokens": 60, "order": "all"})
        connection.request("POST", "/v1/blanks", body, {"Content-Type": "application/json"})
        assert fakes.until(lambda: len(decoder.tickets) == 2)
        connection.close()
        assert fakes.until(lambda: all(one.cancelled for one in decoder.tickets))


def test_a_row_that_fails_is_the_servers_fault(client, decoder, monkeypatch):
    def failing(asks, on_event):
        on_event(0, Ended("failed"))
        return []

    monkeypatch.setattr(decoder, "submit", failing)
    answer = client.post("/v1/blanks", json={"text": TEXT})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"


def test_the_route_is_documented(client):
    schema = client.get("/openapi.json").json()
    post = schema["paths"]["/v1/blanks"]["post"]
    assert "order" in post["description"]
    properties = schema["components"]["schemas"]["BlanksRequest"]["properties"]
    assert all("description" in one for one in properties.values())
