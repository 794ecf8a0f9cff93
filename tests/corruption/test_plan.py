"""Segments of documents, how far a row gets through them, and the order of spans."""

import numpy as np
import pytest

from glm_jax.corruption.plan import Segments, fit, order_in_part_b
from glm_jax.draws import Draws


def segments_of(counts, size):
    size = np.array(size)
    begins, ends = np.arange(len(size)) % 2 == 0, np.arange(len(size)) % 3 == 0
    return Segments(np.array(counts), np.cumsum(size) - size, size, begins, ends)


def draws_of(rows):
    return Draws(0, np.zeros(rows, np.int64), np.arange(rows))


def test_segments_of_some_rows():
    segments = segments_of([2, 0, 1, 3], [5, 4, 7, 1, 2, 3])
    assert segments.row.tolist() == [0, 0, 2, 3, 3, 3]
    some = segments.take(np.array([1, 3]))
    assert some.counts.tolist() == [0, 3]
    assert some.size.tolist() == [1, 2, 3]
    assert some.source.tolist() == [16, 17, 19]
    assert some.begins.tolist() == [False, True, False]
    assert some.ends.tolist() == [True, False, False]


def test_some_segments_of_all_rows():
    segments = segments_of([2, 0, 1, 3], [5, 4, 7, 1, 2, 3])
    some = segments.choose(np.array([1, 3, 5]))
    assert some.counts.tolist() == [1, 0, 0, 2]
    assert some.row.tolist() == [0, 3, 3]
    assert some.size.tolist() == [4, 1, 3]


def test_rows_with_chosen_segments():
    segments = segments_of([2, 0, 1], [3, 4, 5])
    assert segments.rows_with(np.array([False, True, False])).tolist() == [True, False, False]
    assert segments.rows_with(np.array([False, False, True])).tolist() == [False, False, True]


def test_a_row_takes_segments_until_one_does_not_fit():
    """Of ten slots 4 + 6 fill all; 4, then 7 is cut where 6 are left; 11 are cut at once."""
    segments = segments_of([3, 3, 1, 2, 2], [1] * 11)
    found = fit(segments, np.array([4, 6, 1, 4, 7, 1, 11, 10, 1, 11, 2]), 10)
    assert np.flatnonzero(found.whole).tolist() == [0, 1, 3, 7]
    assert np.flatnonzero(found.cut).tolist() == [4, 6, 9]
    assert found.room[[0, 1, 4, 6, 9]].tolist() == [10, 6, 6, 10, 10]
    # Behind a segment that did not fit there is no room, however small the next one is.
    assert (found.room[[5, 10]] < 0).all()


@pytest.mark.parametrize(("size", "kept"), [(7, [True, False]), (8, [True, True])])
def test_a_short_beginning_is_left_out_unless_it_is_all_there_is(size, kept):
    """The first segment of a row stays with one token, another one needs eight."""
    segments = segments_of([1, 2], [50, 3, 50])
    found = fit(segments, np.array([50, 3, 50]), 12)
    assert found.cut.tolist() == [True, False, True]
    sizes = np.array([1, 3, size])
    assert found.kept(segments, sizes).tolist() == [True, *kept]
    assert not found.kept(segments, np.array([0, 3, size]))[0]


def test_spans_are_in_a_uniform_order_within_their_segment():
    rows = 3000
    segment = np.repeat(np.arange(2 * rows), [3, 1] * rows)
    order = order_in_part_b(draws_of(rows), segment, np.full(rows, 4), shuffle=True)
    order = order.reshape(rows, 4) - 4 * np.arange(rows)[:, None]
    assert (order[:, 3] == 3).all()  # the other segment's only span
    orders, counts = np.unique(order[:, :3], axis=0, return_counts=True)
    assert len(orders) == 6
    assert (abs(counts - rows / 6) < 5 * np.sqrt(rows * 5 / 36)).all()
    straight = order_in_part_b(draws_of(rows), segment, np.full(rows, 4), shuffle=False)
    assert straight.tolist() == list(range(4 * rows))
