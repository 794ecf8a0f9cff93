import pytest

from glm_jax.errors import UserError
from glm_jax.generation.language_model import LanguageModel
from glm_jax.serving.blank_ids import special_ids, spelled, tokenizer_of
from glm_jax.serving.served import Served
from tests.serving.small_models import small_filler


def test_ids_are_those_of_the_tokenizer():
    served = Served(small_filler(), None, "small")
    special = served.model.special
    marks, ends = special_ids(served)
    assert (list(marks.mask_ids), marks.start_id) == (list(special.masks), special.start)
    assert ends == [special.end, special.eos]
    ids = tokenizer_of(served).encode("the light")
    assert [spelled(tokenizer_of(served), [one]) for one in ids] == [" the", " light"]


def test_a_model_that_continues_texts_is_told_where_to_go():
    served = Served(small_filler(position_encoding="rotary"), None, "causal")
    with pytest.raises(UserError, match=r"'causal' continues texts .* /v1/completions"):
        special_ids(served)


def test_a_model_without_a_tokenizer():
    lm = small_filler()
    served = Served(LanguageModel(lm.config, lm.params), None, "bare")
    with pytest.raises(UserError, match="'bare' has no tokenizer that knows blanks"):
        special_ids(served)
    with pytest.raises(UserError, match="holds no tokenizer"):
        tokenizer_of(served)
