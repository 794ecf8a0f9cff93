"""The page's files, and that they ask nothing of another host."""

import re

import pytest
from fastapi.testclient import TestClient

from glm_jax.serving.app import make_app
from glm_jax.serving.page_routes import page_files
from glm_jax.serving.served import Served
from tests.serving.small_models import decoder_of, small_filler


@pytest.fixture(scope="module")
def served():
    lm = small_filler()
    decoder = decoder_of(lm)
    yield Served(lm, decoder, "small")
    decoder.close()


@pytest.fixture(scope="module")
def client(served):
    return TestClient(make_app(served))


def test_the_page_and_all_that_it_names_are_served(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)
    assert len(named) == 6
    imported = set()
    for file in page_files().values():
        imported |= set(re.findall(r'from "\./([^"]+)"', file.content.decode()))
    for path in {*named, *(f"/page/{name}" for name in imported)}:
        assert client.get(path).status_code == 200, path


def test_types(client):
    assert client.get("/page/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/page/base.css").headers["content-type"] == "text/css; charset=utf-8"
    assert client.get("/page/icon.svg").headers["content-type"] == "image/svg+xml"


def test_nothing_else_is_loaded_and_nothing_foreign_is_named(client):
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    for name, file in page_files().items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|[\"'(]//", text), name
        assert "innerHTML" not in text, name
        assert not re.search(r"\sstyle=|\son[a-z]+=\"", text), name


def test_a_file_that_has_not_changed_is_not_sent_again(client):
    first = client.get("/page/main.js")
    tag = {"If-None-Match": first.headers["etag"]}
    again = client.get("/page/main.js", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/page/blanks.js", headers=tag).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fserved.py", "%2e%2e/served.py", "served.py"])
def test_other_files_are_not_there(client, name):
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert b"dataclass" not in answer.content


def test_what_the_page_is_told_of_the_model(client):
    assert client.get("/page/info").json() == {
        "name": "small",
        "fills_blanks": True,
        "chats": False,
        "context": 64,
        # Tokens, two positions, two layers, and the last layer norm.
        "parameters": 16 * (7168 + 2 * 65) + 2 * (12 * 16**2 + 13 * 16) + 2 * 16,
        "layers": 2,
        "candidates": 5,
        "state": "ready",
    }
