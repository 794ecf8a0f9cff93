"""Segments cut into short texts: nothing lost, nothing moved, the distribution of their length."""

import numpy as np
import pytest

from glm_jax.corruption.plan import Segments
from glm_jax.corruption.short import cut_short, expected_parts
from glm_jax.draws import Draws
from glm_jax.ragged import sums


def draws_of(rows):
    return Draws(0, np.zeros(rows, np.int64), np.arange(rows))


def one_segment_each(sizes, ends=True):
    rows = len(sizes)
    sizes = np.asarray(sizes, np.int64)
    begins = np.ones(rows, bool)
    return Segments(np.ones(rows, np.int64), 1000 * np.arange(rows), sizes, begins, begins & ends)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_share_of_the_rows_is_cut(rate):
    cut = cut_short(one_segment_each([512] * 4000), draws_of(4000), 512, rate)
    # A row keeps its 512 tokens whole only where it is not drawn: q is 510 at most.
    share = (cut.counts > 1).mean()
    assert abs(share - rate) <= 5 * np.sqrt(rate * (1 - rate) / 4000)
    assert sums(cut.size, cut.counts).tolist() == [512] * 4000


def test_parts_lie_one_after_the_other_and_are_nearly_equal():
    segments = one_segment_each(np.arange(1, 501))
    cut = cut_short(segments, draws_of(500), 512, 1.0)
    row = cut.row
    follows = row[1:] == row[:-1]
    np.testing.assert_array_equal((cut.source + cut.size)[:-1][follows], cut.source[1:][follows])
    first = np.append(0, np.cumsum(cut.counts)[:-1])
    np.testing.assert_array_equal(cut.source[first], segments.source)
    assert (cut.begins == np.isin(np.arange(len(row)), first)).all()
    last = np.cumsum(cut.counts) - 1
    assert (cut.ends == np.isin(np.arange(len(row)), last)).all()
    assert (np.maximum.reduceat(cut.size, first) - np.minimum.reduceat(cut.size, first) <= 1).all()


def test_length_is_uniform_from_32_to_t_minus_2():
    # Where q tokens are asked for, a segment of T - 2 falls into ceil((T - 2) / q) parts.
    count = cut_short(one_segment_each([98] * 8000), draws_of(8000), 100, 1.0).counts
    asked = np.arange(32, 99)
    expected = np.bincount(-(-98 // asked), minlength=5) / len(asked)
    error = np.sqrt(expected * (1 - expected) / 8000)
    assert (abs(np.bincount(count, minlength=5) / 8000 - expected) <= 5 * error).all()
    assert expected_parts(100, 0.5) == pytest.approx(0.5 * sum(1 / q for q in asked) / len(asked))


def test_what_a_document_ends_with_stays_open():
    cut = cut_short(one_segment_each([200], ends=False), draws_of(1), 200, 1.0)
    assert not cut.ends.any()
