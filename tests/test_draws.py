"""The generator against its published vectors, and the laws of what is drawn with it."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.draws import Draws, Purpose, SpanLengths, below, philox4x32, unit

# Known answers of Random123 1.14 (kat_vectors, "philox4x32 10").
KNOWN = [
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer):
    given = np.array([words(counter)] * 3, np.uint64).T.copy()
    np.testing.assert_array_equal(
        philox4x32(given, tuple(words(key))), np.array([words(answer)] * 3).T
    )


def draws_of(rows, epoch=0, seed=0):
    rows = np.asarray(rows, np.int64)
    return Draws(seed, np.full(len(rows), epoch), rows)


def test_the_first_counter_of_row_0_is_the_known_answer():
    np.testing.assert_array_equal(
        draws_of([0]).integers(Purpose(0), np.array([4])), words(KNOWN[0][2])
    )


def test_draws_do_not_depend_on_count_nor_on_other_rows():
    alone = draws_of([7]).integers(Purpose.PLACE, np.array([9]))
    together = draws_of([2**40, 7, 3]).integers(Purpose.PLACE, np.array([5, 6, 0]))
    assert len(together) == 11
    np.testing.assert_array_equal(together[5:], alone[:6])


def test_seed_epoch_row_and_purpose_all_matter():
    counts = np.array([8])
    variants = [
        draws_of([1]).integers(Purpose.PLACE, counts),
        draws_of([1]).integers(Purpose.LENGTH, counts),
        draws_of([2]).integers(Purpose.PLACE, counts),
        draws_of([1 + 2**32]).integers(Purpose.PLACE, counts),
        draws_of([1], epoch=1).integers(Purpose.PLACE, counts),
        draws_of([1], seed=1).integers(Purpose.PLACE, counts),
        draws_of([1], seed=2**32).integers(Purpose.PLACE, counts),
    ]
    assert len(np.unique(np.stack(variants))) == 8 * len(variants)


def test_draws_are_uniform():
    draws = unit(draws_of(range(500)).integers(Purpose.PLACE, np.full(500, 101)))
    assert stats.kstest(draws, "uniform").pvalue > 1e-4


def test_below():
    assert below(np.array([0, 2**31, 2**32 - 1]), 10).tolist() == [0, 5, 9]
    assert below(np.array([2**32 - 1, 2**32 - 1]), np.array([1, 3])).tolist() == [0, 2]


@pytest.mark.parametrize(("mean", "longest"), [(3.0, 39), (10.0, 12), (0.5, 5), (3.0, 1)])
def test_span_lengths_follow_the_renormalised_poisson_law(mean, longest):
    distribution = SpanLengths.poisson(mean, longest)
    expected = stats.poisson(mean).pmf(np.arange(1, longest + 1))
    expected /= expected.sum()
    np.testing.assert_allclose(distribution.probabilities, expected, rtol=1e-9)
    n = 200_000
    drawn = distribution(draws_of([0]).integers(Purpose.LENGTH, np.array([n])))
    assert drawn.min() >= 1
    assert drawn.max() <= longest
    if longest > 1:
        counts = np.bincount(drawn, minlength=longest + 1)[1:]
        common = expected * n >= 5
        observed = [*counts[common], counts[~common].sum()]
        predicted = [*(expected[common] * n), expected[~common].sum() * n]
        keep = np.array(predicted) > 0
        assert stats.chisquare(np.array(observed)[keep], np.array(predicted)[keep]).pvalue > 1e-4


def test_extreme_draws():
    distribution = SpanLengths.poisson(3.0, 39)
    assert distribution(np.array([0, 2**32 - 1])).tolist()[0] == 1
    assert distribution(np.array([2**32 - 1]))[0] <= 39


def test_published_mean_and_overshoot():
    distribution = SpanLengths.poisson(3.0, 39)
    assert distribution.mean == pytest.approx(3 / (1 - np.exp(-3)))
    # Filling a budget until it is reached passes it by this much on average.
    lengths = distribution(draws_of(range(4000)).integers(Purpose.LENGTH, np.full(4000, 76)))
    total = lengths.reshape(4000, 76).cumsum(axis=1)
    reached = np.take_along_axis(total, (total < 76).sum(axis=1)[:, None], axis=1)
    assert distribution.overshoot == pytest.approx(reached.mean() - 76, abs=0.1)
