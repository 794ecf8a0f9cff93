import asyncio

import pytest

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.streaming import GrowingText
from glm_jax.serving.answers import Answer
from glm_jax.serving.asking import Ask
from glm_jax.serving.errors import ApiError
from glm_jax.serving.metrics import Metrics
from glm_jax.serving.running_rows import Running, usage
from tests.serving.fakes import Bytes, FakeDecoder, until

EOS = Bytes.chat_end_ids[0]


def run(decoder, *stops, rows=1, most=10_000, **options):
    """(texts, the object) of rows of one prompt."""

    async def main():
        asks = [Ask(Prompt([7, 8], Limits([EOS], most), Sampling()), **options)] * rows
        answers = [Answer(GrowingText(Bytes().decode), stops) for _ in asks]
        running = Running(decoder, asks, answers, Metrics(decoder).clock(rows, 0.0))
        return await running.finish(), running

    return asyncio.run(main())


def texts_by_row():
    """A script of which each row has the next text."""
    texts = iter(["ab", "cd", "ef"])
    return lambda ask: next(texts)


def test_texts_are_not_crossed():
    texts, running = run(FakeDecoder(texts_by_row()), rows=3)
    assert texts == ["ab", "cd", "ef"]
    assert [answer.finish_reason for answer in running.answers] == ["stop"] * 3


def test_a_stop_string_cancels_its_row():
    decoder = FakeDecoder(lambda ask: b"abEND" + b"x" * 9000, delay=0.001)
    texts, running = run(decoder, "END")
    assert texts == ["ab"]
    assert until(lambda: decoder.counts().ended == {"cancelled": 1})
    assert decoder.counts().generated_tokens < 1000
    assert usage(2, running.answers) == {
        "prompt_tokens": 2,
        "completion_tokens": 5,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_a_row_that_fails_ends_the_others():
    texts = iter([[97, "fail"], [98] * 9000])
    decoder = FakeDecoder(lambda ask: next(texts), delay=0.001)
    with pytest.raises(ApiError, match="failed"):
        run(decoder, rows=2)
    assert until(lambda: decoder.counts().ended == {"failed": 1, "cancelled": 1})


def test_scores_of_a_prompt_are_kept():
    _, running = run(FakeDecoder(lambda ask: "a"), alternatives=0, echo=True)
    assert [scored.id for scored in running.echoed[0]] == [8]
