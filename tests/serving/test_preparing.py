import asyncio
import threading

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.options import Limits
from glm_jax.generation.sampling import Sampling
from glm_jax.serving.errors import ApiError
from glm_jax.serving.preparing import Preparer, Scores
from glm_jax.serving.protocol import CompletionRequest
from glm_jax.serving.served import RequestLimits, Served
from tests.serving.fakes import FakeDecoder, FakeModel, say


def preparer(generation=None, context=100, **limits):
    model = FakeModel(generation=generation)
    decoder = FakeDecoder(say(""), context=context)
    return Preparer(Served(model, decoder, "m", RequestLimits(**limits)))


def sampling(generation=None, **fields):
    return preparer(generation).sampling(CompletionRequest(prompt="a", **fields))


SUGGESTED = {"do_sample": True, "temperature": 0.8, "top_p": 0.7}


def test_ids_are_chosen_as_the_request_says_else_the_checkpoint_else_greedily():
    assert sampling(seed=0) == Sampling()
    assert sampling(SUGGESTED, seed=0) == Sampling(temperature=0.8, top_p=0.7)
    assert sampling(SUGGESTED, seed=0, temperature=0) == Sampling(temperature=0, top_p=0.7)
    assert sampling({"do_sample": True, "top_k": 5}, seed=0) == Sampling(temperature=1.0, top_k=5)
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.1, "seed": 4}
    assert sampling(SUGGESTED, **given, min_tokens=2) == Sampling(**given, min_new_tokens=2)
    assert sampling(top_k=-1).top_k == 0


def test_without_a_seed_each_request_has_another():
    assert sampling(temperature=1).seed != sampling(temperature=1).seed


def test_an_answer_ends_where_the_context_or_the_server_says():
    assert preparer().new_tokens(None, 0, 90, None) == 10
    assert preparer().new_tokens(None, 0, 50, 16) == 16
    assert preparer(new_tokens=7).new_tokens(None, 0, 50, 16) == 7
    assert preparer(new_tokens=7).new_tokens(5, 0, 50, 16) == 5


@pytest.mark.parametrize(
    ("wanted", "least", "length", "param", "code"),
    [
        (11, 0, 90, "max_tokens", "context_length_exceeded"),
        (None, 0, 100, None, "context_length_exceeded"),
        (21, 0, 1, "max_tokens", None),
        (5, 6, 1, "min_tokens", None),
    ],
)
def test_more_is_refused_by_name(wanted, least, length, param, code):
    with pytest.raises(ApiError) as found:
        preparer(new_tokens=20).new_tokens(wanted, least, length, None)
    assert (found.value.status, found.value.param, found.value.code) == (400, param, code)


def test_rows_of_a_request_have_a_limit():
    preparer(rows=6).check_rows(2, 3)
    with pytest.raises(ApiError, match="at most 6 answers on this server; got 7 x n=1"):
        preparer(rows=6).check_rows(7, 1)


def test_equal_rows_are_told_apart():
    one = preparer(seconds=10)
    limits = Limits([1], 5)
    prompts = [one.prompt(ids, limits, Sampling()) for ids in ([3], [4], [3])]
    asks = one.asks(prompts, 2, Scores(2, True), "c", 100.0)
    assert [ask.prompt.ids for ask in asks] == [[3], [3], [4], [4], [3], [3]]
    assert [ask.copy for ask in asks] == [0, 1, 0, 1, 2, 3]
    assert {(ask.alternatives, ask.echo, ask.client) for ask in asks} == {(2, True, "c")}
    assert {ask.deadline for ask in asks} == {110.0}


def test_an_id_outside_of_the_vocabulary_is_refused():
    with pytest.raises(UserError, match="outside the vocabulary"):
        preparer().prompt([10**6], Limits([1], 5), Sampling())


def test_a_model_has_one_name():
    preparer().check_model(None)
    preparer().check_model("m")
    with pytest.raises(ApiError) as found:
        preparer().check_model("gpt")
    assert (found.value.status, found.value.code) == (404, "model_not_found")


def test_texts_are_encoded_beside_the_event_loop():
    async def main():
        return await preparer().aside(threading.get_ident)

    assert asyncio.run(main()) != threading.get_ident()
