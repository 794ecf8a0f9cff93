"""The official client, and what an evaluation harness reads, at a server whose scheduler is a
script."""

import openai
import pytest

from tests.generation.chat_stand_ins import GMASK, SOP
from tests.serving.fakes import Bytes, FakeDecoder, FakeModel, client, served

EOS = Bytes.special.eos


@pytest.fixture(scope="module")
def decoder():
    return FakeDecoder(lambda ask: " 月!" if ask.prompt.ids[-1] != ord("?") else "")


@pytest.fixture(scope="module")
def api(decoder):
    with served(decoder) as address:
        yield client(address)


def complete(api, prompt="ab", **options):
    return api.completions.create(model="m", prompt=prompt, **options)


def streamed(chunks):
    """{index: (text, the four lists joined, how it ended)} of a stream."""
    found = {}
    for choice in (one for chunk in chunks for one in chunk.choices):
        text, lists, _ = found.get(choice.index, ("", {}, None))
        for name, more in (choice.logprobs.model_dump() if choice.logprobs else {}).items():
            lists.setdefault(name, []).extend(more)
        found[choice.index] = text + choice.text, lists, choice.finish_reason
    return found


def test_a_completion_has_openai_s_form(api, decoder):
    found = complete(api)
    assert found.object == "text_completion"
    (choice,) = found.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == (" 月!", "stop", None)
    # [gMASK] sop a b; space, three bytes, !, the end id.
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (4, 6)
    prompt = decoder.asked[-1].prompt
    assert list(prompt.ids) == [GMASK, SOP, *b"ab"]
    assert (prompt.limits.max_new_tokens, prompt.limits.end_ids) == (16, [EOS])


def test_special_tokens_in_a_text_stay_text(api, decoder):
    complete(api, "[gMASK]<|endoftext|>")
    assert list(decoder.asked[-1].prompt.ids) == [GMASK, SOP, *b"[gMASK]<|endoftext|>"]


@pytest.mark.parametrize(
    ("prompt", "rows"),
    [
        (["a", "b"], [[GMASK, SOP, 97], [GMASK, SOP, 98]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
def test_prompts_come_as_texts_or_ids(api, decoder, prompt, rows):
    found = complete(api, prompt)
    assert [list(ask.prompt.ids) for ask in decoder.asked[-len(rows) :]] == rows
    assert [choice.index for choice in found.choices] == list(range(len(rows)))


def test_answers_to_a_prompt_stand_together(api, decoder):
    found = complete(api, ["a", "b"], n=2, echo=True, max_tokens=1)
    assert [choice.text for choice in found.choices] == ["a ", "a ", "b ", "b "]
    assert [ask.copy for ask in decoder.asked[-4:]] == [0, 1, 0, 1]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (6, 4)


def test_log_probabilities_of_prompt_and_answer(api):
    found = complete(api, echo=True, logprobs=1, max_tokens=2).choices[0]
    assert found.text == "ab \N{REPLACEMENT CHARACTER}"
    lists = found.logprobs
    assert lists.tokens == ["a", "b", " ", "token_id:230"]
    assert lists.token_logprobs == [-0.097, -0.098, -0.032, -0.23]
    assert lists.top_logprobs[1] == {"a": -0.097, "b": -0.098}
    assert lists.text_offset == [0, 1, 2, 3]


def test_the_first_of_ids_alone_has_no_probability(api):
    lists = complete(api, [97, 98], echo=True, logprobs=0, max_tokens=1).choices[0].logprobs
    assert lists.token_logprobs == [None, -0.098, -0.032]
    assert lists.top_logprobs == [None, {"b": -0.098}, {" ": -0.032}]


def test_the_end_id_is_among_the_tokens(api):
    """A harness drops the last token, which it takes for the generated one."""
    found = complete(api, [97, 63], echo=True, logprobs=1, max_tokens=1)
    lists = found.choices[0].logprobs
    assert found.choices[0].text == "a?"
    assert lists.token_logprobs == [None, -0.063, -EOS / 1000]
    assert found.usage.completion_tokens == 1


def harness(choice, context_length):
    """(sum of log-probabilities, whether greedy) of a continuation, as lm-evaluation-harness reads
    them of `local-completions`."""
    values = choice.logprobs.token_logprobs[context_length:-1]
    best = choice.logprobs.top_logprobs[context_length:-1]
    return sum(values), all(
        value == max(one.values()) for value, one in zip(values, best, strict=True)
    )


def test_a_harness_scores_continuations(api):
    rows = [[97, 98, 97], [98, 97, 98]]
    found = complete(api, rows, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    # "a" is the most probable of all, "b" is not.
    assert harness(found.choices[0], 2) == (-0.097, True)
    total, is_greedy = harness(found.choices[1], 1)
    assert (round(total, 6), is_greedy) == (-0.195, False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_is_scored_alone(api, decoder, stream):
    options = {"echo": True, "logprobs": 1, "max_tokens": 0}
    if stream:
        (found,) = streamed(complete(api, stream=True, **options)).values()
        text, lists, reason = found
    else:
        answer = complete(api, **options)
        assert answer.usage.completion_tokens == 0
        (choice,) = answer.choices
        text, reason = choice.text, choice.finish_reason
        lists = choice.logprobs.model_dump()
    assert (text, reason) == ("ab", "length")
    assert lists["token_logprobs"] == [-0.097, -0.098]
    assert decoder.asked[-1].prompt.limits.max_new_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_computed_for_no_answer(api, decoder, stream):
    before = len(decoder.asked)
    found = complete(api, ["a", "b"], max_tokens=0, echo=True, stream=stream)
    if stream:
        assert streamed(found) == {0: ("a", {}, "length"), 1: ("b", {}, "length")}
    else:
        assert [choice.text for choice in found.choices] == ["a", "b"]
    assert len(decoder.asked) == before


@pytest.mark.parametrize("options", [{}, {"echo": True}, {"stop": "!"}, {"max_tokens": 4}])
def test_a_stream_joined_is_the_whole(api, options):
    options = {"logprobs": 2, "n": 2, **options}
    whole = complete(api, ["ab", "月"], **options)
    found = streamed(complete(api, ["ab", "月"], stream=True, **options))
    for choice in whole.choices:
        text, lists, reason = found[choice.index]
        assert (text, reason) == (choice.text, choice.finish_reason)
        assert lists == choice.logprobs.model_dump()


def test_usage_of_a_stream(api):
    *chunks, last = complete(api, stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks)
    assert (last.choices, last.usage.completion_tokens) == ([], 6)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[97], []]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
    ],
)
def test_what_cannot_be_is_refused_by_name(api, options, param):
    with pytest.raises(openai.BadRequestError) as found:
        complete(api, **options)
    assert found.value.param == param


@pytest.mark.parametrize("prompt", [[10**6], [-1]])
def test_ids_outside_of_the_vocabulary_are_refused(api, prompt):
    with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
        complete(api, prompt)


def test_a_model_that_fills_blanks_names_the_route_that_does():
    model = FakeModel(position_encoding="learned_block")
    with (
        served(FakeDecoder(lambda ask: ""), model) as address,
        pytest.raises(openai.BadRequestError, match="/v1/blanks"),
    ):
        complete(client(address))
