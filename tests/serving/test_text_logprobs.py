from glm_jax.serving.asking import Scored
from glm_jax.serving.pieces import Pieces
from glm_jax.serving.text_logprobs import joined, text_logprobs
from tests.serving.fakes import Bytes


def test_four_lists_of_one_entry_a_token():
    pieces = Pieces(Bytes())
    scores = [None, Scored(98, -1.5, ((97, -0.5), (98, -1.5)))]
    prompt = text_logprobs(pieces, b"ab", scores, [0, 1])
    assert prompt == {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {"a": -0.5, "b": -1.5}],
        "text_offset": [0, 1],
    }
    answer = text_logprobs(pieces, b"c", [Scored(99, -3.0, ((97, -0.5),))], [2])
    # The token itself is among its alternatives, probable or not.
    assert answer["top_logprobs"] == [{"a": -0.5, "c": -3.0}]
    both = joined(prompt, answer)
    assert both["tokens"] == ["a", "b", "c"]
    assert both["text_offset"] == [0, 1, 2]


def test_without_alternatives_the_token_stands_alone():
    found = text_logprobs(Pieces(Bytes()), b"a", [Scored(97, -0.25, ())], [0])
    assert found["top_logprobs"] == [{"a": -0.25}]
