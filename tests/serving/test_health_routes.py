import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from glm_jax.serving.health_routes import router
from glm_jax.serving.metrics import Metrics
from glm_jax.serving.served import Served
from tests.serving.fakes import FakeDecoder, FakeModel, say


@pytest.mark.parametrize(
    ("state", "status"), [("ready", 200), ("compiling", 503), ("draining", 503), ("failed", 503)]
)
def test_health_says_whether_requests_are_answered_now(state, status):
    decoder = FakeDecoder(say(""), slots=3)
    app = FastAPI()
    app.include_router(router(Served(FakeModel(), decoder, "m"), Metrics(decoder)))
    decoder.state = state
    found = TestClient(app).get("/health")
    assert found.status_code == status
    assert found.json() == {"status": state, "slots": 3, "busy": 0, "waiting": 0}
    figures = TestClient(app).get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "glm_jax_slots_rows 3.0" in figures.text
