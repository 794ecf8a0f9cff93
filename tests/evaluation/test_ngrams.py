import numpy as np
import pytest

from glm_jax.evaluation.ngrams import WordCounts

# Parts of the three texts, ends left out: a b . | a b c | d b c
TEXTS = ["a b.", "a b c", "d b c"]


def test_the_unigram_takes_the_most_frequent_whatever_stands_beside():
    counts = WordCounts(TEXTS)
    # b 3, a 2, c 2, d 1; of equals the first in the alphabet.
    assert counts.unigram(1, 4) == ["b", "a", "c", "d"]
    assert counts.unigram(2, 3) == ["b b", "a b", "b a"]


def test_the_bigram_looks_at_both_sides():
    counts = WordCounts(TEXTS)
    # Behind "a" only b stands; in front of "b" a stands twice and d once.
    assert counts.bigram("x a", " c", 1, 1) == ["b"]
    assert counts.bigram("", " b c", 1, 2) == ["a", "d"]
    # A sign is a neighbour, and no answer: "." comes behind b alone.
    assert counts.bigram("a", ".", 1, 1) == ["b"]
    assert "." not in counts.bigram("b", "", 1, 9)


def test_two_words_are_chosen_together():
    counts = WordCounts(["go up now", "go up now", "go on then", "he went up then"])
    assert counts.bigram("go", " then", 1, 1) == ["on"]
    assert counts.bigram("he", " then", 2, 1) == ["went up"]


def test_scores_are_shares_of_pairs_and_of_words():
    counts = WordCounts(TEXTS)
    # 14 parts with the ends, which all are one part: it stands 6 times.
    share = {"a": 2 / 15, "b": 3 / 15, "c": 2 / 15, "d": 1 / 15, ".": 1 / 15, "": 6 / 15}
    behind = counts._behind(counts._ids["b"])
    assert behind.sum() == pytest.approx(1.0)
    assert behind[counts._ids["c"]] == pytest.approx(0.9 * 2 / 3 + 0.1 * share["c"])
    assert behind[counts._ids["d"]] == pytest.approx(0.1 * share["d"])
    before = counts._before("c")
    assert before[counts._ids["b"]] == pytest.approx(0.9 * 2 / 3 + 0.1 * share["c"])
    assert before[counts._ids["a"]] == pytest.approx(0.1 * share["c"])
    # What never stood anywhere says nothing of its neighbours.
    np.testing.assert_array_equal(counts._before("q"), 1.0)
    assert counts.bigram("q", " q", 1, 1) == ["b"]


def test_only_one_or_two_words():
    with pytest.raises(ValueError, match="one or two words; got 3"):
        WordCounts(TEXTS).unigram(3, 1)
