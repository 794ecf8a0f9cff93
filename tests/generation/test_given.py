"""Numbers and special ids that a user gives to generation and scoring."""

import inspect
import math

import jax
import numpy as np
import pytest

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.given import check_length_penalty, check_special_ids, given
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh

SHAPE = {"vocab_size": 50, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "max_positions": 64}
SPECIAL = {"mask_ids": [3], "start_id": 4, "end_ids": [2]}
INTS = {
    "max_new_tokens",
    "top_k",
    "seed",
    "num_beams",
    "min_new_tokens",
    "no_repeat_ngram",
    "max_total_tokens",
    "window",
    "stride",
}
FLOATS = {"temperature", "top_p", "repetition_penalty", "length_penalty"}
IDS = {"mask_ids", "start_id", "end_ids", "eos_ids"}
NO_INT = [True, np.bool_(True), 1.5, 2.0, math.nan, math.inf, "2", [2], -1, 2**64, 10**400]
NO_FLOAT = [math.nan, math.inf, -math.inf, 1e39, "0.5", True, np.bool_(True), [0.5], 10**400]


def model_of(**options):
    config = ModelConfig(**{**SHAPE, **options})
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed=0))


@pytest.fixture(scope="module")
def calls():
    """Each method that takes numbers, with arguments that are good."""
    filler, causal = model_of(), model_of(position_encoding="rotary")

    def fill(**options):
        return filler.fill_blanks([5, 3, 6], **{"max_new_tokens": 4, **SPECIAL, **options})

    def generate(**options):
        return causal.generate([[5, 6]], **{"max_new_tokens": 4, "eos_ids": [2], **options})

    def score(**options):
        return causal.score([5, 6], [[7, 8]], **options)

    def token_log_probabilities(**options):
        return causal.token_log_probabilities([5, 6, 7], prefix_ids=[1], **options)

    return {"fill_blanks": fill, "generate": generate, "score": score,
            "token_log_probabilities": token_log_probabilities}  # fmt: skip


def options():
    """(method, option) for every number that a method takes, by its signature."""
    for name in ("fill_blanks", "generate", "score", "token_log_probabilities"):
        for option in inspect.signature(getattr(LanguageModel, name)).parameters:
            if option in INTS | FLOATS:
                yield name, option


@pytest.mark.parametrize(("method", "option"), list(options()))
def test_what_is_no_number_is_named(calls, method, option):
    for value in NO_INT if option in INTS else NO_FLOAT:
        with pytest.raises(UserError, match=f"^{option} ") as refused:
            calls[method](**{option: value})
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("method", ["fill_blanks", "generate"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"temperature": 1e-46},
            r"temperature must be 0 \(greedy\) or at least 1e-06; got 1e-46",
        ),
        ({"temperature": -1.0}, r"temperature must be at least 0; got -1\.0"),
        ({"top_p": 0.0}, r"top_p must be above 0 and at most 1; got 0\.0"),
        ({"top_p": 1e-50}, r"top_p must be above 0 and at most 1, as float32 too; got 1e-50"),
        ({"top_k": 2**31}, "top_k must be at most 2147483647; got 2147483648"),
        ({"seed": 2**64}, "seed must be at most 18446744073709551615; got 18446744073709551616"),
        ({"max_new_tokens": 2**31}, "max_new_tokens must be at most 2147483647"),
        ({"max_new_tokens": 1000}, "max_new_tokens=1000"),
        ({"min_new_tokens": 5}, "min_new_tokens must be at most max_new_tokens=4; got 5"),
        ({"min_new_tokens": 5, "num_beams": 2}, "min_new_tokens must be at most max_new_tokens=4"),
        ({"no_repeat_ngram": 2**31}, "no_repeat_ngram must be at most 2147483647"),
        ({"num_beams": 0}, "num_beams must be at least 1; got 0"),
        ({"num_beams": 10**12}, "num_beams must be at most 2147483647"),
        ({"num_beams": 26}, "num_beams=26 is too much for a vocabulary of 50"),
        (
            {"num_beams": 2, "length_penalty": 5.5},
            "length_penalty must be at least -5 and at most",
        ),
        ({"num_beams": 2, "length_penalty": -1e30}, "length_penalty must be at least -5"),
    ],
)
def test_numbers_out_of_range_are_named(calls, method, given, message):
    with pytest.raises(UserError, match=message):
        calls[method](**given)


def test_a_penalty_of_repetition_that_cannot_divide_is_named(calls):
    for value, message in ((0.0, "above 0; got"), (1e-46, "above 0, as"), (1e-7, "at least 1e-06")):
        with pytest.raises(UserError, match=f"repetition_penalty must be {message}"):
            calls["generate"](repetition_penalty=value)


def test_numbers_just_inside_work(calls):
    greedy = calls["generate"](eos_ids=[])
    assert calls["generate"](eos_ids=[], temperature=1e-6, seed=2**64 - 1) == greedy
    assert calls["generate"](eos_ids=[], temperature=1.0, top_p=1e-45) == greedy
    assert calls["generate"](eos_ids=[], temperature=1.0, top_k=np.int64(1)) == greedy
    for penalty in (1e-6, 1e30):
        (ids,) = calls["generate"](eos_ids=[], repetition_penalty=penalty)
        assert (len(set(ids) | {5, 6}) == 6) == (penalty > 1)
    for penalty in (-5, 5):
        assert len(calls["generate"](eos_ids=[], num_beams=2, length_penalty=penalty)[0]) == 4
        assert np.isfinite(calls["score"](length_penalty=penalty)).all()
    everything = calls["generate"](eos_ids=[], temperature=1.0, top_k=2**31 - 1)
    assert everything == calls["generate"](eos_ids=[], temperature=1.0)


def test_the_high_word_of_a_seed_counts(calls):
    options = {"temperature": 1.0, "max_new_tokens": 12}
    for method, rest in (("generate", {"eos_ids": []}), ("fill_blanks", {"end_ids": []})):
        seeds = (0, 2**32, 2**33, 2**63, 2**64 - 2**32)
        drawn = [calls[method](seed=seed, **options, **rest) for seed in seeds]
        assert len({str(ids) for ids in drawn}) == len(seeds)


@pytest.mark.parametrize("value", [50, -1, 10**400, True, 2.0, "2"])
def test_special_ids_are_ids_of_the_vocabulary(calls, value):
    for method, option in (
        ("generate", "eos_ids"),
        ("fill_blanks", "mask_ids"),
        ("fill_blanks", "start_id"),
        ("fill_blanks", "end_ids"),
    ):
        for beams in (1, 2):
            ids = value if option == "start_id" else [3, value]
            with pytest.raises(UserError, match=f"^{option} must be "):
                calls[method](**{option: ids, "num_beams": beams})


def test_special_ids():
    config = ModelConfig(**SHAPE)
    check_special_ids(config, start_id=49, end_ids=[], mask_ids=(0, np.int32(3)))
    with pytest.raises(UserError, match=r"^end_ids must be at most 49; got 50$"):
        check_special_ids(config, start_id=4, end_ids=[5, 50])
    with pytest.raises(UserError, match=r"^end_ids must be a list of ids; got 5$"):
        check_special_ids(config, end_ids=5)


def test_the_default_is_taken_where_nothing_is_given():
    assert given("start_id", 0, 7) == 0
    assert given("start_id", None, 7) == 7
    assert given("end_ids", [], [7]) == []  # no end at all is given by hand: it acts
    with pytest.raises(UserError, match="give start_id="):
        given("start_id", None, None)


def test_length_penalties():
    assert check_length_penalty(-5) == -5.0
    with pytest.raises(UserError, match=r"length_penalty must be at least -5 and at most 5; got 9"):
        check_length_penalty(9)
