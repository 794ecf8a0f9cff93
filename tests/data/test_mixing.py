"""Which source a row comes from: shares, order, and nothing but the number decides."""

import numpy as np
import pytest

from glm_jax.data.mixing import Mixing, source_seed

RATES = [[0.7, 0.3], [0.1, 0.2, 0.3, 0.4], [5, 1, 1], [1.0]]


def test_the_picture():
    source, index = Mixing([0.5, 0.25, 0.25], [0, 0, 0])(np.arange(8))
    assert source.tolist() == [2, 0, 1, 0, 2, 0, 1, 0]
    assert index.tolist() == [0, 0, 0, 1, 1, 2, 1, 3]


def test_a_phase_moves_the_turns():
    """Half a turn in advance, a source of share 1/2 has the even numbers, not the odd ones."""
    for phase, turns in ((0, [1, 0, 1, 0, 1, 0]), (2**31, [0, 1, 0, 1, 0, 1])):
        source, index = Mixing([1, 1], [phase, 0])(np.arange(6))
        assert source.tolist() == turns
        assert index.tolist() == [0, 0, 1, 1, 2, 2]
    # A quarter each of the second half: with three quarters of a turn, the first of every four.
    source, _ = Mixing([1, 3], [3 * 2**30, 0])(np.arange(8))
    assert source.tolist() == [0, 1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("rates", RATES)
def test_shares_are_kept_everywhere(rates):
    source, index = Mixing(rates, [2**31] * len(rates))(np.arange(20_000))
    for k, rate in enumerate(rates):
        taken = source == k
        assert index[taken].tolist() == list(range(taken.sum()))
        share = rate / sum(rates) * np.arange(1, len(source) + 1)
        # At most one row off for each source before it and itself.
        assert np.abs(np.cumsum(taken) - share).max() <= k + 1


@pytest.mark.parametrize("rates", RATES)
def test_only_the_number_counts(rates):
    deal = Mixing(rates, [7, 2**32 - 1, 5, 3][: len(rates)])
    source, index = deal(np.arange(1000))
    some = np.random.default_rng(0).permutation(1000)[:100]
    np.testing.assert_array_equal(deal(some), (source[some], index[some]))


def test_far_numbers_are_exact():
    share = round(0.7 * 2**32)
    far = [2**62, 2**62 + 12345]
    _, index = Mixing([0.7, 0.3], [9, 0])(np.array(far))
    source, _ = Mixing([0.7, 0.3], [9, 0])(np.array(far))
    first = [(n * share + 9) >> 32 for n in far]
    expected = [
        n if k == 0 else far[i] - n for i, (k, n) in enumerate(zip(source, first, strict=True))
    ]
    assert index.tolist() == expected


def test_sources_draw_apart():
    drawn = {source_seed(seed, name) for seed in range(3) for name in ("a", "b", "1/a")}
    assert len(drawn) == 9
    for seed, phase in drawn:
        assert 0 <= seed < 2**64
        assert 0 <= phase < 2**32
