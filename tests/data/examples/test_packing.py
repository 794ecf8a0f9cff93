"""Examples of different lengths in rows: full, each once, the same for a seed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.examples.packing import best_fit, one_each, together


def fills(packed, lengths, row_length):
    used = np.add.reduceat(lengths[packed.order], packed.starts[:-1])
    assert sorted(packed.order.tolist()) == list(range(len(lengths)))
    assert (np.diff(packed.starts) > 0).all()
    assert used.max() <= row_length
    return used


def test_a_small_case():
    lengths = np.array([5, 3, 3, 2, 6])
    packed = best_fit(lengths, 8, seed=0)
    rows = [
        sorted(lengths[packed.order[a:b]].tolist())
        for a, b in zip(packed.starts[:-1], packed.starts[1:], strict=True)
    ]
    assert sorted(rows) == [[2, 6], [3], [3, 5]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=60), st.integers(0, 3))
def test_each_example_once_and_as_best_fit_has_it(lengths, seed):
    lengths = np.array(lengths)
    used = fills(best_fit(lengths, 16, seed), lengths, 16)
    rooms: list[int] = []
    for size in sorted(lengths.tolist(), reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else 16) - size)
    assert len(used) == len(rooms)
    assert sorted(16 - used) == sorted(rooms)


def test_the_seed_decides():
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    one, again, other = (best_fit(lengths, 256, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.order, again.order)
    np.testing.assert_array_equal(one.starts, again.starts)
    assert (one.order != other.order).any()
    # Rows come in drawn order, not the longest first.
    first = lengths[one.order[one.starts[:-1]]]
    assert abs(first[: len(first) // 2].mean() - first[len(first) // 2 :].mean()) < 10


def conversations(count, row_length, seed=0):
    """Lengths as chats have them: log-normal, with a tail that is cut at the row."""
    drawn = np.random.default_rng(seed).lognormal(np.log(220), 0.9, count)
    return np.clip(drawn.astype(np.int64), 8, row_length)


@pytest.mark.parametrize("row_length", [512, 2048])
def test_rows_of_realistic_lengths_are_full(row_length):
    lengths = conversations(20_000, row_length)
    packed = best_fit(lengths, row_length, seed=0)
    assert lengths.sum() / (len(packed) * row_length) >= 0.99


def test_a_million_in_seconds():
    lengths = conversations(1_000_000, 2048)
    begin = time.process_time()
    packed = best_fit(lengths, 2048, seed=0)
    assert time.process_time() - begin < 20  # 2 s on an idle core
    assert lengths.sum() / (len(packed) * 2048) >= 0.99


def test_one_each():
    packed = one_each(3)
    assert (len(packed), packed.order.tolist(), packed.starts.tolist()) == (
        3,
        [0, 1, 2],
        [0, 1, 2, 3],
    )


def test_examples_of_a_group_share_a_row():
    packed = together(np.array([4, 4, 7, 9, 9, 9]))
    assert packed.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert packed.starts.tolist() == [0, 2, 3, 6]
    assert len(together(np.zeros(0, np.int64))) == 0
