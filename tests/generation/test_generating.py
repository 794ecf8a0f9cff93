import dataclasses

import jax
import pytest

import glm_jax
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import BeamSearch
from glm_jax.generation.sampling import Sampling
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=32, num_layers=2, embed_dim=16, num_heads=2, max_positions=16
).resolved(ComputeConfig(scan_layers=False))


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(CONFIG, create_params(CONFIG, one_device(), seed=0))


def test_special_ids_come_from_the_tokenizer(lm):
    tokenizer = glm_jax.load_tokenizer("bundled")
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size)
    model = LanguageModel(config, create_params(config, one_device(), seed=0), tokenizer)
    special = tokenizer.special
    ids = [special.cls, 40, special.mask, 41, special.smask, special.eos]
    given = {
        "mask_ids": special.masks,
        "start_id": special.start,
        "end_ids": [special.end, special.eos],
    }
    answers = model.fill_blanks(ids, max_new_tokens=5)
    assert len(answers) == 2
    assert answers == model.fill_blanks(ids, max_new_tokens=5, **given)


def test_how_to_decode_is_an_object_or_its_fields(lm):
    said = {"mask_ids": [3], "start_id": 5, "end_ids": [6], "max_new_tokens": 4}
    for how, options in (
        (Sampling(temperature=0.8, seed=4), {"temperature": 0.8, "seed": 4}),
        (BeamSearch(3, 0.5), {"num_beams": 3, "length_penalty": 0.5}),
    ):
        assert lm.fill_blanks([1, 3, 2], how=how, **said) == lm.fill_blanks(
            [1, 3, 2], **options, **said
        )
    with pytest.raises(UserError, match="leave out temperature"):
        lm.fill_blanks([1, 3, 2], how=Sampling(), temperature=0.5, **said)


def test_the_engine_is_kept_until_an_array_is_replaced(lm):
    model = LanguageModel(CONFIG, lm.params)
    said = {"mask_ids": [3], "start_id": 5, "end_ids": [6], "max_new_tokens": 4}
    before, engine = model.fill_blanks([1, 3, 2], **said), model._engine()
    assert model._engine() is engine
    # With the table turned round, the model says the mirrored id.
    table = model.params["embedding"]["table"]
    model.params["embedding"] = {"table": table[::-1]}
    assert model._engine() is not engine
    ids = {**said, "mask_ids": [28], "start_id": 26, "end_ids": [25]}
    after = model.fill_blanks([30, 28, 29], **ids)
    assert after == [[31 - id_ for id_ in row] for row in before]
    assert after != before
