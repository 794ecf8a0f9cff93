import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from glm_jax.serving.errors import ApiError
from glm_jax.serving.model_routes import router
from glm_jax.serving.served import Served
from tests.serving.fakes import FakeDecoder, FakeModel, say


def api(name="org/m", **options):
    app = FastAPI()
    app.include_router(router(Served(FakeModel(**options), FakeDecoder(say("")), name)))
    return TestClient(app)


def test_one_model_is_listed_with_what_it_can_do():
    (model,) = api().get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("org/m", "model", 4096)
    assert model["can"] == {"chat": True, "complete": True, "fill_blanks": False}
    (model,) = api(position_encoding="learned_block").get("/v1/models").json()["data"]
    assert model["can"] == {"chat": True, "complete": False, "fill_blanks": True}


def test_it_is_found_by_its_name_alone():
    assert api().get("/v1/models/org/m").json()["id"] == "org/m"
    with pytest.raises(ApiError, match="no model 'gpt' here; there is 'org/m'"):
        api().get("/v1/models/gpt")
