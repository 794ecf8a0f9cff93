"""How ids are chosen: an object, or its fields by name."""

import pytest

from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.options import BeamSearch, check_beams, decoding
from glm_jax.generation.sampling import Sampling


def test_fields_by_name_make_the_object():
    assert decoding(None, {}) == Sampling()
    assert decoding(None, {"seed": 3}, {"temperature": 0.5, "top_k": 0}) == Sampling(0.5, seed=3)
    beams = {"num_beams": 4, "length_penalty": 0.5, "min_new_tokens": 2, "no_repeat_ngram": 3}
    assert decoding(None, beams) == BeamSearch(4, 0.5, 2, 3)
    assert decoding(None, {"num_beams": 1, "no_repeat_ngram": 3}) == Sampling(no_repeat_ngram=3)


def test_an_object_is_taken_as_it_is_and_excludes_the_names():
    how = Sampling(0.7, seed=2)
    assert decoding(how, {}, {"temperature": 0.0, "top_k": 0, "top_p": 1.0}) is how
    with pytest.raises(
        UserError, match="excludes options by name; leave out num_beams, temperature"
    ):
        decoding(how, {"num_beams": 2}, {"temperature": 0.1})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"num_beams": 2, "temperature": 0.5},
            UserError,
            "num_beams=2 searches and does not sample",
        ),
        ({"num_beams": 2, "repetition_penalty": 1.5}, UserError, "use no_repeat_ngram"),
        ({"num_beams": 0}, UserError, "num_beams must be at least 1"),
        ({"length_penalty": 9}, UserError, "length_penalty"),
        ({"temprature": 1.0}, TypeError, "temprature"),
    ],
)
def test_what_does_not_go_together(options, error, message):
    with pytest.raises(error, match=message):
        decoding(None, options)


def test_a_vocabulary_too_small_for_the_beams():
    with pytest.raises(UserError, match=r"num_beams=9 is too much for .* 16; at most 8"):
        check_beams(BeamSearch(9), ModelConfig(vocab_size=16), [3])
