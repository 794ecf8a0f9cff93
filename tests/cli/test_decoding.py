"""Options about decoding."""

import pytest

from glm_jax import cli
from glm_jax.adapters.quantising import Quantize
from glm_jax.errors import UserError


def test_all_options_of_decoding_have_their_defaults():
    parser = cli.Parser()
    cli.add_decoding_arguments(parser)
    found = vars(parser.parse_args([]))
    assert set(found) == set(cli.DECODING)
    given = {name: value for name, value in found.items() if value is not None}
    assert given == {
        "max_new_tokens": 64,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "seed": 0,
        "min_new_tokens": 0,
        "no_repeat_ngram": 0,
    }


def test_how_matrices_are_quantised():
    parser = cli.Parser()
    cli.add_quantize_arguments(parser, "plain")

    def options(*given):
        return cli.quantize_options(parser.parse_args(given))

    assert options() is None
    plain = {"bits": 8, "group_size": None, "search": False, "embedding": False}
    assert options("--quantize", "int8") == plain
    given = ["--quantize", "int4", "--group_size", "128", "--scale_search", "--quantize_embedding"]
    expected = {"bits": 4, "group_size": 128, "search": True, "embedding": True}
    assert options(*given) == expected
    assert Quantize(**expected) == Quantize(4, 128, search=True, embedding=True)
    for alone in (["--group_size", "128"], ["--scale_search"], ["--quantize_embedding"]):
        with pytest.raises(UserError, match=f"{alone[0]} goes with --quantize int8 or int4"):
            options(*alone)
    with pytest.raises(UserError, match="--quantize: invalid choice: 'int2'"):
        options("--quantize", "int2")


def inference(*arguments):
    parser = cli.Parser(prog="plan")
    cli.add_inference_arguments(parser)
    for name in ("tune", "tune_layers", "sequences_per_chip"):
        parser.add_argument(f"--{name}", type=int)
    return cli.inference_options(parser.parse_args(arguments))


def test_options_of_decoding_and_of_training_do_not_mix():
    assert inference("--sequences_per_chip", "2") is None
    found = inference("--inference", "--quantize", "int4", "--context", "64")
    assert found == {"quantize": "int4", "batch_size": 1, "context": 64}
    with pytest.raises(UserError, match="--model needs --inference"):
        inference("--model", "chatglm3-6b")
    with pytest.raises(UserError, match="--batch needs --inference"):
        inference("--batch", "8")
    with pytest.raises(UserError, match="--tune is for training, not for --inference"):
        inference("--inference", "--tune", "1")
