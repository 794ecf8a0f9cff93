"""What ends a text: generation_config.json first, as in transformers."""

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.ends import chat_ends_of, eos_ids_of, marks_of, span_ends_of
from glm_jax.generation.options import Marks
from glm_jax.interop.architectures.chatglm_6b import CHATGLM_6B
from glm_jax.interop.origin import Origin
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=1, gmask=2, smask=3, start=4, end=5, cls=6, eos=9, pad=9)


@pytest.mark.parametrize(
    ("generation", "config", "special", "expected"),
    [
        ({"eos_token_id": [5, 7]}, {"eos_token_id": 2}, SPECIAL, [5, 7]),
        ({"eos_token_id": 5}, {"eos_token_id": [2, 3]}, None, [5]),
        ({"eos_token_id": []}, {"eos_token_id": 2}, SPECIAL, []),
        ({"eos_token_id": None}, {"eos_token_id": 2}, SPECIAL, [2]),
        ({}, {"eos_token_id": [2, 3]}, SPECIAL, [2, 3]),
        ({}, {"eos_token_id": 0}, SPECIAL, [0]),
        ({}, {"eos_token_id": None}, SPECIAL, [9]),
        ({}, {}, None, None),
    ],
)
def test_the_order(generation, config, special, expected):
    assert eos_ids_of(Origin(values=config, generation=generation), special) == expected


@pytest.mark.parametrize("odd", ["2", True, 2.0, [True], [2, "3"], [[2]], -1, {"a": 1}])
def test_what_is_no_id(odd):
    for file, origin in (
        ("generation_config.json", Origin(generation={"eos_token_id": odd})),
        ("config.json", Origin(values={"eos_token_id": odd}, generation={"eos_token_id": 3})),
    ):
        with pytest.raises(UserError, match=f"eos_token_id in {file} must be an id or a list"):
            eos_ids_of(origin, None)


def test_what_is_around_a_blank_is_the_tokenizers_or_config_jsons():
    said = Origin(CHATGLM_6B, values={"bos_token_id": 24, "eos_token_id": 25})
    assert marks_of(said, SPECIAL) == Marks((1, 2, 3), 4, gmask_id=2)
    assert span_ends_of(said, SPECIAL) == [5, 9]
    assert marks_of(said, None) == Marks((20, 21), 24, gmask_id=21)
    assert span_ends_of(said, None) == [25]
    assert marks_of(Origin(), None) is None
    assert span_ends_of(Origin(values={"eos_token_id": 2}), None) is None


def test_an_answer_in_a_chat_ends_as_the_tokenizer_or_the_files_say():
    assert chat_ends_of(Origin(values={"eos_token_id": 2}), (7, 2, 5)) == [2, 5, 7]
    assert chat_ends_of(Origin(generation={"eos_token_id": [3, 5]}), (5,)) == [3, 5]
    assert chat_ends_of(Origin(), ()) == []
