"""Candidates of a request: those of `fill_candidates`, from programs that many requests share."""

import pytest

from glm_jax.errors import UserError
from glm_jax.generation.candidates import Filling
from glm_jax.generation.options import Limits
from glm_jax.generation.texts import fill_candidates
from glm_jax.serving.blank_search import Search, warm
from glm_jax.serving.blank_texts import BlankText
from glm_jax.serving.served import RequestLimits, Served
from tests.serving.small_models import decoder_of, small_filler

TEXT = "the [MASK] of the king."


@pytest.fixture(scope="module")
def served():
    lm = small_filler()
    decoder = decoder_of(lm)
    yield Served(lm, decoder, "small", RequestLimits(candidates=3))
    decoder.close()


def search(served, text=TEXT, longest=3):
    special = served.model.special
    read = BlankText.read(text)
    ids = read.ids(served.model.tokenizer)
    return Search(served, read, ids, Limits([special.end, special.eos], longest))


def test_candidates_are_those_of_the_commands(served):
    one = search(served)
    found = one.candidates(one.run())
    expected = fill_candidates(served.model, TEXT, 3, num_beams=6, max_new_tokens=3)
    assert [candidate.text for candidate, _ in found[:3]] == [one.text for one in expected]
    assert [tuple(candidate.answers) for candidate, _ in found[:3]] == [
        one.answers for one in expected
    ]
    assert [candidate.probability for candidate, _ in found[:3]] == pytest.approx(
        [one.probability for one in expected], rel=1e-4
    )


def test_the_number_of_beams_is_the_servers(served):
    assert search(served).beams == 6
    assert search(served).room == search(served, "a longer [MASK] it is", 5).room


def test_rows_have_few_sizes(served):
    """8 ids, a blank of so many and 64."""
    assert len(search(served).ids) == 8
    assert search(served, longest=56).room.size == 128
    assert search(served, longest=57).room.size == 256
    with pytest.raises(UserError, match="max_tokens is at most 64; got 65"):
        assert search(served, longest=65).room
    with pytest.raises(UserError, match="at most 16 blanks; got 17"):
        assert search(served, "[MASK]" * 17, 1).room
    with pytest.raises(UserError, match=r"4 answers of at most 60 are more than 192; a smaller"):
        assert search(served, "[MASK]" * 4, 60).room


def test_what_is_run_at_the_start_compiles_all_that_requests_run(served, compiled):
    works = warm(served)
    assert len(works) == 3
    for work in works:
        work()
    compiled.clear()
    for text, longest in (
        (TEXT, 3),
        ("[MASK] and [MASK] or [MASK].", 20),
        ("of " * 62 + "[MASK]", 4),
    ):
        found = search(served, text, longest)
        found.candidates(found.run())
    assert compiled == []


def test_equal_answers_are_one_candidate(served):
    encode = served.model.tokenizer.encode
    one, two = encode("light"), encode("dark")
    found = search(served).candidates(
        [Filling([one], -1.0), Filling([one], -2.0), Filling([two], -3.0)]
    )
    assert [(candidate.answers, tokens) for candidate, tokens in found] == [
        (["light"], 2),
        (["dark"], 2),
    ]
    assert found[0][0].text == "the light of the king."
    assert found[0][0].probability == pytest.approx(0.36788, rel=1e-4)


def test_too_little_memory_is_said(served, monkeypatch):
    monkeypatch.setattr("glm_jax.serving.blank_search.available_bytes", lambda device: 10_000)
    with pytest.raises(UserError, match=r"6 beams over this text takes .* left: a shorter text"):
        search(served, "[MASK] and [MASK]").run()
