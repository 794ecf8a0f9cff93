"""Rows of a request, and orders against what the model gives for rows built as in training."""

import jax
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.corruption import assemble
from glm_jax.errors import UserError
from glm_jax.serving.asking import Chosen, Ended, Scored
from glm_jax.serving.blank_protocol import BlanksRequest
from glm_jax.serving.blanks import Progress, plan, text_tokens, texts_of
from glm_jax.serving.scheduler import Scheduler
from glm_jax.serving.served import RequestLimits, Served
from tests.serving.fakes import until
from tests.serving.small_models import decoder_of, small_filler

TEXT = "the [MASK] of the king was [MASK] in [MASK]."


@pytest.fixture(scope="module")
def lm():
    return small_filler()


@pytest.fixture(scope="module")
def served(lm):
    scheduler = Scheduler(lm, slots=2, context=256)
    scheduler.start()
    yield Served(lm, scheduler, "small", RequestLimits(new_tokens=90))
    scheduler.close()


def filled(served, **body):
    """The fillings of a request, as the routes make them."""
    request = BlanksRequest(**{"max_tokens": 4, "logprobs": 2, **body})
    asked = plan(served, request)
    found = [Progress(row) for row in asked.rows]
    served.decoder.submit(
        [row.ask for row in asked.rows], lambda index, event: found[index].add(event)
    )
    assert until(lambda: all(one.ended for one in found), 120)
    assert {one.ended.reason for one in found} <= {"end", "length"}
    return [one.filling(served, asked.texts[one.row.text], True) for one in found], asked


def scored(lm, ids, answers, order, longest):
    """Log-probabilities of each answer's ids and its end, in a row of training.

    Args:
      ids: of the text with masks.
      answers: ids for each mask.
      order: of part B.
      longest: ids of an answer.
    """
    special = lm.tokenizer.special
    text, spans = [], []
    rest = iter(answers)
    for id_ in ids:
        if id_ == special.mask:
            answer = next(rest)
            spans.append((len(text), len(text) + len(answer)))
            text += answer
        else:
            text.append(id_)
    fields = assemble(
        text, spans, order, mask_id=special.mask, start_id=special.start, end_id=special.end
    )
    # The last id of an answer that max_tokens cut off was never fed, and no end was asked for.
    ends = np.flatnonzero((fields["targets"] == special.end) & (fields["loss_weights"] > 0))
    cut = [end for end, blank in zip(ends, order, strict=True) if len(answers[blank]) == longest]
    fields = {name: np.delete(value, cut)[None] for name, value in fields.items()}
    slots = np.arange(fields["tokens"].shape[1])
    fields["attend_end"] = np.maximum(fields["attend_end"].min(), slots + 1)[None].astype(np.int32)
    row = Batch(**fields)
    logs = np.asarray(jax.nn.log_softmax(lm.logits(row)))[0]
    asked = np.flatnonzero(row.loss_weights[0])
    values = logs[asked, row.targets[0, asked]]
    sizes = [len(answers[blank]) + (len(answers[blank]) < longest) for blank in order]
    return dict(zip(order, np.split(values, np.cumsum(sizes)[:-1]), strict=True))


def pieces(text):
    return [one.pieces for one in texts_of(BlanksRequest(text=text))]


def test_one_text_or_several_spelled_or_in_parts():
    parts = [{"text": "c [MASK]"}, {"blank": "sMASK"}]
    assert pieces("a [MASK] b") == [("a ", " b")]
    assert pieces(["a [MASK]", "[gMASK] b"]) == [("a ", ""), ("", " b")]
    assert pieces(parts) == [("c [MASK]", "")]
    assert pieces([parts, "a [MASK]"]) == [("c [MASK]", ""), ("a ", "")]
    assert texts_of(BlanksRequest(text=parts))[0].blanks == ("[sMASK]",)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]])
def test_an_order_is_that_of_part_b_in_training(lm, served, order):
    """Every token's probability: an order that is ignored, or turned around, changes them all."""
    (found,), asked = filled(served, text=TEXT, order=order)
    answers = [[one.id for one in answer.tokens if not one.ends] for answer in found.answers]
    expected = scored(lm, asked.ids[0], answers, order, 4)
    total = 0.0
    for blank, answer in enumerate(found.answers):
        got = np.log([one.probability for one in answer.tokens])
        np.testing.assert_allclose(got, expected[blank], rtol=2e-4)
        np.testing.assert_allclose(np.log(answer.probability), got.sum(), rtol=1e-6)
        total += got.sum()
    assert found.order == order
    np.testing.assert_allclose(found.log_probability, total, rtol=1e-6)


def test_orders_differ_and_each_is_answered_as_if_it_were_alone(served):
    several, _ = filled(served, text=TEXT, order=[[0, 1, 2], [2, 1, 0]], temperature=1.0, seed=3)
    alone, _ = filled(served, text=TEXT, order=[2, 1, 0], temperature=1.0, seed=3)
    assert several[1] == alone[0]
    assert several[0].answers != several[1].answers


def test_all_orders(served):
    body = BlanksRequest(text=[TEXT, "a [MASK]"], order="all", n=2)
    rows = plan(served, body).rows
    assert [(row.text, row.order) for row in rows[:3]] == [(0, (0, 1, 2))] * 2 + [(0, (0, 2, 1))]
    assert len(rows) == 2 * (6 + 1)
    assert rows[2].ask.prompt.blanks == [rows[0].ask.prompt.blanks[blank] for blank in (0, 2, 1)]


def test_copies_of_a_text_draw_differently_and_orders_are_no_copies(served):
    body = BlanksRequest(text=["a [MASK]", "a [MASK]"], n=2)
    assert [row.ask.copy for row in plan(served, body).rows] == [0, 1, 2, 3]
    body = BlanksRequest(text="a [MASK] b [MASK]", order="all", n=2)
    assert [row.ask.copy for row in plan(served, body).rows] == [0, 1, 0, 1]


def test_answers_stand_in_the_order_of_the_text(lm, served):
    """Made by hand: blank 1 is filled first, with one id and an end; time ends blank 0."""
    body = BlanksRequest(text="a [MASK] b [MASK] c", order=[1, 0], logprobs=1, max_tokens=5)
    (row,) = plan(served, body).rows
    tokenizer, end = lm.tokenizer, lm.tokenizer.special.end
    one, two = tokenizer.encode("light")[0], tokenizer.encode("dark")[0]
    progress = Progress(row)
    for event in (
        Chosen(one, 0, False, Scored(one, np.log(0.5), ((two, np.log(0.25)),))),
        Chosen(end, 0, True, Scored(end, np.log(0.8), ((end, np.log(0.8)),))),
        Chosen(two, 1, False, Scored(two, np.log(0.1), ((end, np.log(0.3)),))),
        Ended("deadline"),
    ):
        progress.add(event)
    found = progress.filling(served, texts_of(body)[0], True)
    assert found.text == "a dark b light c"
    assert [answer.text for answer in found.answers] == ["dark", "light"]
    assert [answer.finish_reason for answer in found.answers] == ["deadline", "stop"]
    assert [answer.probability for answer in found.answers] == pytest.approx([0.1, 0.4])
    assert found.probability == pytest.approx(0.04)
    (dark,), (light, ended) = (answer.tokens for answer in found.answers)
    assert (light.text, light.alternatives[0].text) == (" light", " dark")
    assert (ended.text, ended.ends, ended.alternatives[0].ends) == ("", True, True)
    assert (dark.alternatives[0].text, dark.alternatives[0].ends) == ("", True)
    assert progress.tokens == 3
    assert progress.ended == Ended("deadline")


def test_max_tokens_is_what_the_context_leaves(lm):
    def limits(context, **body):
        served = Served(lm, decoder_of(lm, context), "small", RequestLimits(new_tokens=20))
        try:
            return [one.max_new_tokens for one in plan(served, BlanksRequest(**body)).limits]
        finally:
            served.decoder.close()

    assert limits(256, text="a [MASK]") == [20]  # the server's limit
    assert limits(16, text=["a [MASK]", "a [MASK] b [MASK]"]) == [12, 5]  # 4 and 6 ids
    assert limits(16, text="a [MASK]", max_tokens=12) == [12]
    for wrong, match in (
        ({"max_tokens": 13}, "4 tokens with 1 blank of max_tokens=13 does not fit .* of 16 tokens"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"text": "a" + " [MASK]" * 9}, "with 9 blanks does not fit the context of 16 tokens"),
    ):
        with pytest.raises(UserError, match=match):
            limits(16, **{"text": "a [MASK]", **wrong})
    with pytest.raises(UserError, match="max_tokens must be at most 20; got 21"):
        limits(256, text="a [MASK]", max_tokens=21)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ({"text": []}, "text is an empty list"),
        ({"text": "a"}, "no blank in the text"),
        ({"order": [0]}, r"each of the 3 blanks of text 0 once, as \[0, 1, 2\] does; got \[0\]"),
        ({"order": [0, 1, 1]}, r"got \[0, 1, 1\]"),
        ({"order": [[0, 1, 2], [3, 1, 2]]}, r"got \[3, 1, 2\]"),
        ({"order": []}, r"got \[\]"),
        ({"n": 65}, "texts times orders times n must be at most 64 in one request; got 65"),
        ({"text": "a" + " [MASK]" * 20, "order": "all"}, "must be at most 64 .* got 65"),
        ({"candidates": 6}, "candidates must be at most 5; got 6"),
        ({"candidates": 2, "temperature": 0.5}, "not sampled; leave out temperature"),
        ({"candidates": 2, "order": [2, 1, 0], "logprobs": 2}, "leave out order, logprobs"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 2.0}, "top_p must be above 0 and at most 1; got 2"),
        ({"text": "word " * 70 + "[MASK]"}, "does not fit the model's 65 positions"),
        ({"text": "[CLS]" * 99_999 + "[MASK]"}, "a text of 100000 tokens does not fit"),
        ({"text": ["[MASK]"] * 65}, "must be at most 64 in one request; got 65"),
        ({"top_k": 10**30}, "top_k must be at most"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(served, body, match):
    with pytest.raises(UserError, match=match):
        plan(served, BlanksRequest(**{"text": TEXT, **body}))


def test_tokens_of_the_text_are_spelled(served, lm):
    ids = plan(served, BlanksRequest(text="a king [MASK]")).ids[0]
    shown = [one.text for one in text_tokens(served, ids)]
    assert shown == ["[CLS]", " a", " king", "[MASK]", "<|endoftext|>"]
