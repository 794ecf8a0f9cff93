"""The sentence objective on texts whose sentences can be counted by hand."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.batch import SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.plan import Segments
from glm_jax.corruption.sentences import find_sentences, plan_sentences
from glm_jax.draws import Draws, SpanLengths
from glm_jax.ragged import group_of, starts, sums
from tests.corruption.measured import assert_both_ends_alike, assert_lengths_alike, masked_slots

STOP = 1
ENDS = np.array([False, True, False])
LENGTHS = SpanLengths.poisson(3.0, 39)


def ids(text):
    """ "ab. c." -> a token per character, STOP for a full stop."""
    return np.array([STOP if character == "." else 2 for character in text])


def found(text, begins=True, ends=True, before=""):
    stored = ids(before + text)
    segments = Segments(
        np.array([1]), np.array([len(before)]), np.array([len(text)]), *np.array([[begins], [ends]])
    )
    _, start, length, whole = find_sentences(segments, segments.size, stored, ENDS)
    return [text[s : s + n] for s, n, w in zip(start, length, whole, strict=True) if w]


@pytest.mark.parametrize(
    ("text", "options", "sentences"),
    [
        ("ab.cd..e", {}, ["ab.", "cd..", "e"]),
        ("ab.cd.", {}, ["ab.", "cd."]),
        (".ab", {}, [".", "ab"]),
        ("ab.cd.e", {"ends": False}, ["ab.", "cd."]),
        ("ab.cd.", {"ends": False}, ["ab.", "cd."]),
        ("ab.cd.", {"begins": False, "before": "x"}, ["cd."]),
        ("ab.cd.", {"begins": False, "before": "x."}, ["ab.", "cd."]),
        ("abcd", {"begins": False, "ends": False, "before": "x"}, []),
        ("a", {}, ["a"]),
    ],
)
def test_whole_sentences(text, options, sentences):
    assert found(text, **options) == sentences


def test_several_segments():
    stored = ids("ab.c" + "de." + "f")
    yes = np.ones(3, bool)
    segments = Segments(np.array([2, 1]), np.array([0, 4, 7]), np.array([4, 3, 1]), yes, yes)
    counts, start, length, whole = find_sentences(segments, segments.size, stored, ENDS)
    assert counts.tolist() == [2, 1, 1]
    assert start.tolist() == [0, 3, 0, 0]
    assert length.tolist() == [3, 1, 3, 1]
    assert whole.all()


def test_a_sentence_that_ends_with_the_segment_is_whole_whatever_comes_next():
    yes, no = np.ones(2, bool), np.zeros(2, bool)
    segments = Segments(np.array([1, 1]), np.array([0, 3]), np.array([3, 2]), yes, no)
    _, start, length, whole = find_sentences(segments, segments.size, ids("ab..c"), ENDS)
    assert start.tolist() == [0, 0, 1]
    assert length.tolist() == [3, 1, 1]
    assert whole.tolist() == [True, True, False]


def plan(texts, length=4096, **options):
    sizes = np.array([len(text) for text in texts])
    yes = np.ones(len(texts), bool)
    segments = Segments(np.ones(len(texts), np.int64), starts(sizes), sizes, yes, yes)
    draws = Draws(0, np.zeros(len(texts), np.int64), np.arange(len(texts)))
    config = ObjectiveConfig(span_rate=0.0, sentence_rate=1.0, **options)
    return plan_sentences(segments, draws, length, LENGTHS, config, ids("".join(texts)), ENDS)


def test_one_of_ten_equal_sentences_is_enough():
    made = plan(["abcd." * 10] * 3000, sentence_mask_ratio=0.1)
    assert (made.num_spans == 1).all()
    assert (made.length == 5).all()
    assert (made.objective == SENTENCE).all()
    assert stats.chisquare(np.bincount(made.start // 5, minlength=10)).pvalue > 1e-4


def test_sentences_are_taken_until_they_reach_the_share():
    rng = np.random.default_rng(0)
    text = "".join("x" * n + "." for n in rng.integers(2, 20, 30))
    made = plan([text] * 500, sentence_mask_ratio=0.3)
    budget = int(0.3 * len(text))
    masked = sums(made.length, made.num_spans)
    assert (masked >= budget).all()
    assert (masked - 20 < budget).all()
    stops = np.flatnonzero(ids(text) == STOP) + 1
    assert set((made.start + made.length).tolist()) <= set(stops.tolist())
    assert set(made.start.tolist()) <= {0, *stops.tolist()}
    segment = group_of(made.num_spans)
    touching = (made.start[1:] == (made.start + made.length)[:-1]) & (segment[1:] == segment[:-1])
    assert touching.any()


def test_sentences_are_masked_alike_wherever_they_stand():
    """The one that passes the share tends to be long too, but stays where the text has it."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 20, (6000, 12))
    made = plan(["".join("x" * n + "." for n in row) for row in sizes])
    assert (made.objective == SENTENCE).all()
    first = np.cumsum(sizes + 1, axis=1) - sizes - 1
    segment = group_of(made.num_spans)
    number = (first[segment] == made.start[:, None]).argmax(axis=1)
    assert stats.chisquare(np.bincount(number, minlength=12)).pvalue > 1e-4
    of_number = [made.length[number == i] for i in range(12)]
    assert stats.f_oneway(*of_number).pvalue > 1e-4
    assert_lengths_alike(made.num_spans, made.length)


def test_spans_of_texts_without_a_sentence_are_alike():
    made = plan(["x" * 80 + "."] * 8000)
    assert (made.objective == SPAN).all()
    assert_lengths_alike(made.num_spans, made.length)
    assert_both_ends_alike(masked_slots(made))


def test_a_text_that_is_one_sentence_gets_spans():
    made = plan(["x" * 80 + ".", "ab." * 20])
    assert made.objective.tolist() == [SPAN, SENTENCE]
    assert made.fallen_back.tolist() == [True, False]
    assert (made.length[: made.num_spans[0]] < 40).all()


@pytest.mark.parametrize("length", [40, 100])
def test_rows_are_filled_and_not_overfilled(length):
    rng = np.random.default_rng(1)
    texts = ["".join("x" * n + "." for n in rng.integers(1, 12, 60)) for _ in range(300)]
    made = plan(texts, length=length)
    used = 1 + made.size + 2 * made.num_spans
    assert (used <= length).all()
    assert used.mean() > 0.97 * length
    end = made.start + made.length
    assert (end <= made.size[group_of(made.num_spans)]).all()
    assert made.num_spans.min() >= 1
