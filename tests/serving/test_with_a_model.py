"""The official client, the routes, the scheduler and a small model together."""

import concurrent.futures

import numpy as np
import pytest

from glm_jax.serving.replies import whole
from glm_jax.serving.scheduler import Scheduler
from tests.generation.chat_stand_ins import GMASK, SOP, model
from tests.serving.fakes import Bytes, client, served, until

TEXTS = ["hello", "床前明月光", "and then?", "x"]


@pytest.fixture(scope="module")
def lm():
    return model(Bytes())


@pytest.fixture(scope="module")
def scheduler(lm):
    found = Scheduler(lm, slots=4, queue=64)
    found.start()
    assert until(lambda: found.counts().state == "ready", 300)
    return found


@pytest.fixture(scope="module")
def api(lm, scheduler):
    with served(scheduler, lm) as address:
        yield client(address, timeout=120)


def ask(api, text, **options):
    messages = [{"role": "user", "content": text}]
    return api.chat.completions.create(model="m", messages=messages, **options)


def test_answers_are_those_of_the_model_alone_streamed_or_not(lm, api):
    tokenizer, expected = lm.tokenizer, {}
    for text in TEXTS:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": text}])
        (ids,) = lm.generate([prompt], max_new_tokens=20, eos_ids=lm.chat_end_ids)
        expected[text] = whole(tokenizer.decode(ids), tokenizer.read_answer)["content"]

    def one(number):
        text = TEXTS[number % 4]
        if number < 4:
            return ask(api, text, max_tokens=20).choices[0].message.content == expected[text]
        parts = ask(api, text, max_tokens=20, stream=True)
        said = "".join(part.choices[0].delta.content or "" for part in parts)
        return said == expected[text]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))


@pytest.mark.nightly
def test_sixty_four_streams_at_once_are_neither_lost_nor_crossed_nor_cut(lm, api, scheduler):
    """Some minutes; every eighth client leaves in the middle of each second answer."""
    texts = [f"{number} {TEXTS[number % 4]}" for number in range(64)]
    prompts = [[GMASK, SOP, *text.encode()] for text in texts]
    expected = [
        lm.tokenizer.decode(ids, skip_special=True)
        for ids in lm.generate(prompts, max_new_tokens=60)
    ]

    def one(number):
        for turn in range(40):
            parts, leaves = [], number % 8 == 0 and turn % 2
            with api.completions.create(
                model="m", prompt=texts[number], max_tokens=60, stream=True
            ) as stream:
                for chunk in stream:
                    parts.append(chunk.choices[0].text)
                    if leaves and len(parts) == 5:
                        break
            if not leaves:
                assert "".join(parts) == expected[number], (number, turn)
        return True

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert all(pool.map(one, range(64)))
    assert until(lambda: scheduler.counts().busy + scheduler.counts().waiting == 0)


def test_completions_are_those_of_the_model_alone(lm, api):
    for text in TEXTS:
        found = api.completions.create(model="m", prompt=text, max_tokens=12)
        (ids,) = lm.generate([[GMASK, SOP, *text.encode()]], max_new_tokens=12)
        assert found.choices[0].text == lm.tokenizer.decode(ids, skip_special=True)


def test_scores_of_a_prompt_are_the_model_s_own(lm, api):
    rows = [[GMASK, SOP, *text.encode()] for text in TEXTS]
    found = api.completions.create(
        model="m", prompt=rows, echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    for row, choice in zip(rows, found.choices, strict=True):
        values = choice.logprobs.token_logprobs
        (expected,) = lm.answer_scores([row[:1]], [row[1:]])
        assert values[0] is None
        np.testing.assert_allclose(values[1:-1], expected.log_probabilities, atol=1e-4)
    texts = api.completions.create(model="m", prompt=TEXTS, echo=True, logprobs=0, max_tokens=0)
    for one, other in zip(found.choices, texts.choices, strict=True):
        np.testing.assert_allclose(
            one.logprobs.token_logprobs[2:-1], other.logprobs.token_logprobs, atol=1e-4
        )


def test_a_seed_says_what_is_drawn(api):
    def drawn(seed):
        found = ask(api, "hello", temperature=1.0, seed=seed, n=2, max_tokens=10)
        return [choice.message.content for choice in found.choices]

    first = drawn(1)
    assert first == drawn(1)
    assert first != drawn(2)
    assert first[0] != first[1]


def test_log_probabilities_of_an_answer_are_its_alternatives(api):
    found = ask(api, "hello", logprobs=True, top_logprobs=3, max_tokens=5)
    for token in found.choices[0].logprobs.content:
        values = [one.logprob for one in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.logprob == values[0]  # greedily
        assert token.token == token.top_logprobs[0].token


def test_a_stop_string_of_the_model_s_own_ends_it(api):
    text = ask(api, "hello", max_tokens=30).choices[0].message.content
    stop = text[len(text) // 2 :][:3]
    found = ask(api, "hello", max_tokens=30, stop=stop).choices[0]
    assert found.finish_reason == "stop"
    assert found.message.content == text[: text.index(stop)].strip()


def test_a_stream_that_is_closed_frees_its_slot(api, scheduler):
    with ask(api, "hello", stream=True, extra_body={"min_tokens": 200}) as stream:
        parts = iter(stream)
        next(parts)
        next(parts)
    assert until(lambda: scheduler.counts().busy == 0, 2)
    assert scheduler.counts().ended["cancelled"] >= 1


def test_a_repeated_prompt_is_not_computed_again(api):
    text = "the same words in front of all " * 4
    ask(api, text, max_tokens=2)
    again = ask(api, text, max_tokens=2).usage
    assert 0 < again.prompt_tokens_details.cached_tokens < again.prompt_tokens
