import pytest

from glm_jax.generation.streaming import GrowingText
from glm_jax.serving.answers import Answer
from glm_jax.serving.asking import Chosen, Ended, Scored
from glm_jax.serving.errors import ApiError
from tests.serving.fakes import Bytes

EOS = Bytes.chat_end_ids[0]


def answer(*stops, min_tokens=0):
    return Answer(GrowingText(Bytes().decode), stops, min_tokens)


def feed(one, text):
    return [one.take(Chosen(id_, scored=Scored(id_, -1.0, ()))) for id_ in text.encode()]


@pytest.mark.parametrize(
    ("reason", "expected"), [("end", "stop"), ("length", "length"), ("deadline", "length")]
)
def test_an_answer_ends_as_its_row_does(reason, expected):
    one = answer()
    assert feed(one, "月b") == ["", "", "月", "b"]
    assert one.finish_reason is None
    assert one.take(Ended(reason, reused=3)) == ""
    assert (one.finish_reason, one.count, one.reused) == (expected, 4, 3)


def test_an_end_id_is_counted_and_is_no_text():
    one = answer()
    one.take(Chosen(97))
    assert one.take(Chosen(EOS, ends=True, scored=Scored(EOS, -0.5, ()))) == ""
    one.take(Ended("end"))
    assert one.count == 2
    assert [(token.ends, token.at) for token in one.take_tokens()] == [(True, 1)]


def test_a_stop_string_ends_it_whatever_follows():
    one = answer("END")
    assert "".join(feed(one, "aENDb")) == "a"
    assert one.stopped
    assert (one.finish_reason, one.count) == ("stop", 4)
    assert one.take(Ended("cancelled", reused=1)) == ""
    assert (one.finish_reason, one.reused) == ("stop", 1)


def test_tokens_wait_as_their_text_does():
    one = answer("END")
    feed(one, "aE")
    assert [token.scored.id for token in one.take_tokens()] == [97]
    feed(one, "x")
    assert [token.scored.id for token in one.take_tokens()] == [*b"Ex"]
    feed(one, "bEND")
    assert [token.scored.id for token in one.take_tokens()] == [*b"b"]


def test_no_stop_string_is_looked_for_among_the_least_number_of_tokens():
    one = answer("b", min_tokens=2)
    assert "".join(feed(one, "abab")) == "aba"
    assert one.stopped


def test_text_that_waits_comes_at_the_end():
    one = answer("END")
    feed(one, "aE")
    assert one.take(Ended("length")) == "E"
    assert [token.at for token in one.take_tokens()] == [0, 1]
    one = answer()
    one.take(Chosen("月".encode()[0]))
    assert one.take(Ended("length")) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(("reason", "status"), [("failed", 500), ("cancelled", 503)])
def test_what_the_server_ends_is_an_error(reason, status):
    with pytest.raises(ApiError) as found:
        answer().take(Ended(reason))
    assert found.value.status == status
