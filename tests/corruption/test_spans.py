"""The distributions of the span objective: lengths, masked share, placement, order."""

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from glm_jax.config import ObjectiveConfig, PublishedOptions
from glm_jax.corruption import place_spans
from glm_jax.corruption.plan import SHORTEST_BEGINNING, Segments
from glm_jax.corruption.spans import SpanCandidates, place, plan_spans
from glm_jax.draws import Draws, Purpose, SpanLengths, below
from glm_jax.ragged import group_of, starts, sums, within_groups
from tests.corruption.measured import (
    ERRORS,
    assert_both_ends_alike,
    assert_lengths_alike,
    assert_shares_alike,
    first_of,
    masked_slots,
)

MASKED = PublishedOptions(masked_lm=True)
LENGTHS = SpanLengths.poisson(3.0, 39)


def whole_documents(sizes):
    """One document per row, each of its own size."""
    sizes = np.asarray(sizes, np.int64)
    yes = np.ones(len(sizes), bool)
    return Segments(np.ones(len(sizes), np.int64), starts(sizes), sizes, yes, yes)


def draws_of(rows, seed=0):
    return Draws(seed, np.zeros(rows, np.int64), np.arange(rows))


def plan(sizes, length=4096, single=False, seed=0, **options):
    config = ObjectiveConfig(**options)
    distribution = SpanLengths.poisson(config.mean_span_length, config.max_span_length)
    return plan_spans(
        whole_documents(sizes), draws_of(len(sizes), seed), length, distribution, config, single
    )


def assert_distribution(lengths, distribution):
    n = len(lengths)
    counts = np.bincount(lengths, minlength=len(distribution.probabilities) + 1)[1:]
    expected_counts = distribution.probabilities * n
    common = expected_counts >= 5
    observed = [*counts[common], counts[~common].sum()]
    predicted = [*expected_counts[common], expected_counts[~common].sum()]
    assert stats.chisquare(observed, predicted).pvalue > 1e-4


@pytest.mark.parametrize("size", [40, 120, 500])
def test_lengths_keep_their_distribution_however_many_fit(size):
    assert_distribution(plan([size] * 3000).length, LENGTHS)


def test_lengths_keep_their_law_in_rows_cut_to_fit():
    cut = plan([1000] * 3000, length=256)
    assert (cut.size < 256).all()
    assert_distribution(cut.length, LENGTHS)


@pytest.mark.parametrize("ratio", [0.1, 0.15, 0.2])
@pytest.mark.parametrize("size", [40, 60, 128, 500])
def test_masked_share(size, ratio):
    made = plan([size] * 4000, mask_ratio=ratio)
    masked = sums(made.length, made.num_spans)
    error = masked.std() / np.sqrt(len(masked))
    # The overshoot of a renewal process settles within a few spans.
    assert abs(masked.mean() - ratio * size) < 4 * error + (0.15 if ratio * size < 12 else 0)


@pytest.mark.parametrize("options", [{}, {"published": MASKED}, {"mask_ratio": 0.6}])
@pytest.mark.parametrize("size", [60, 150, 500])
def test_first_middle_and_last_span_are_alike(size, options):
    """The length that passes the budget tends to be long; it may not stand last."""
    made = plan([size] * (600_000 // size), **options)
    assert_lengths_alike(made.num_spans, made.length)


def test_spans_are_alike_where_many_draws_are_equal():
    made = plan([20] * 20_000, mask_ratio=0.7)
    assert_lengths_alike(made.num_spans, made.length)


def test_spans_are_alike_in_texts_that_a_row_cuts_off():
    sizes = np.tile([70, 90], 4000)  # 110 slots: the second text is cut
    segments = Segments(np.full(4000, 2), starts(sizes), sizes, sizes > 0, sizes > 0)
    made = plan_spans(segments, draws_of(4000), 110, LENGTHS, ObjectiveConfig())
    cut = made.size < 70
    assert cut.sum() > 3000
    of_cut = cut[group_of(made.num_spans)]
    assert_lengths_alike(made.num_spans[cut], made.length[of_cut])


@pytest.mark.parametrize("published", [PublishedOptions(), MASKED])
@pytest.mark.parametrize("size", [60, 150, 500])
def test_a_text_is_masked_alike_at_its_start_and_its_end(size, published):
    made = plan([size] * (1_500_000 // size), published=published)
    masked = masked_slots(made)
    assert_both_ends_alike(masked)
    inner = np.linspace(10, size - 10, 5).astype(int)
    assert_shares_alike(masked, [slice(a, b) for a, b in itertools.pairwise(inner)])


@pytest.mark.parametrize("size", [60, 500])
def test_the_edge_that_the_published_placing_leaves(size):
    """A span must begin at the first token for that to be masked: one of k draws of 0..m is 0."""
    made = plan([size] * 30_000)
    masked, k = masked_slots(made), made.num_spans
    beginnings = size - sums(made.length, k) - k + 2  # m + 1
    expected = (1 - (1 - 1 / beginnings) ** k).mean()
    for slot in (0, size - 1):
        error = masked[:, slot].std() / np.sqrt(len(masked))
        assert abs(masked[:, slot].mean() - expected) < ERRORS * error
    assert expected < 0.5 * 0.15
    # From the fifth token on it is over; what the edges lack, a sixth of a token each, the middle
    # has (docs/decisions/016-span-lengths.md).
    fifth, middle = (masked[:, 4].mean(), masked[:, -5].mean()), masked[:, 10:-10].mean()
    np.testing.assert_allclose(fifth, middle, atol=0.003 + ERRORS * 0.36 / np.sqrt(30_000))
    for edge in (masked[:, :4], masked[:, -4:]):
        assert 0.12 < 4 * middle - edge.sum(axis=1).mean() < 0.22
    assert 0.24 < size * middle - masked.sum(axis=1).mean() < 0.44


def until_reached(budget: int, distribution: SpanLengths):
    """For k = 1, 2, ...: [S] the chance that k lengths are taken and sum to S."""
    budget = max(budget, 1)  # the first length is always taken
    probabilities = np.append(0.0, distribution.probabilities)
    below = np.eye(1, budget)[0]
    while below.sum() > 1e-12:
        sums_ = np.convolve(below, probabilities)
        below = sums_[:budget].copy()
        yield np.where(np.arange(len(sums_)) < budget, 0.0, sums_)


def expected(size: int, distribution: SpanLengths, ratio: float = 0.15) -> np.ndarray:
    """Spans of a text, tokens they cover, and their mean length, each on average over texts."""
    lowered = ratio * size - distribution.overshoot
    total = np.zeros(3)
    for budget in (int(np.floor(lowered)), int(np.floor(lowered)) + 1):
        weight = 1 - abs(budget - lowered)
        for k, chance in enumerate(until_reached(budget, distribution), start=1):
            covered = np.arange(len(chance)) @ chance
            total += weight * np.array([k * chance.sum(), covered, covered / k])
    return total


@pytest.mark.parametrize(
    ("size", "mean_of_text"), [(20, 3.242), (40, 3.534), (60, 3.429), (150, 3.272), (500, 3.192)]
)
def test_mean_length_by_arithmetic(size, mean_of_text):
    spans, covered, by_text = expected(size, LENGTHS)
    assert by_text == pytest.approx(mean_of_text, abs=5e-4)
    assert covered / spans == pytest.approx(LENGTHS.mean, abs=1e-9)  # Wald's identity
    if size >= 60:
        deviation = LENGTHS.mean * (2 * LENGTHS.overshoot + 1 - LENGTHS.mean)  # E[l^2] - E[l]^2
        assert by_text == pytest.approx(LENGTHS.mean + deviation / covered, abs=0.03)
    made = plan([size] * (600_000 // size))
    lengths = sums(made.length, made.num_spans)
    # A span of more than half of a text is shortened, which texts of 20 tokens feel.
    less = 0.01 if size == 20 else 0.0
    for measured, predicted in (
        (made.num_spans, spans),
        (lengths, covered),
        (lengths / made.num_spans, by_text),
        (first_of(made.num_spans, made.length), by_text),
    ):
        error = measured.std() / np.sqrt(len(measured))
        assert abs(measured.mean() - predicted) < ERRORS * error + less


def test_every_text_gets_a_span_and_keeps_half():
    made = plan(np.arange(1, 15).repeat(300))
    assert (made.num_spans >= 1).all()
    assert made.fewer.any()
    masked = sums(made.length, made.num_spans)
    short = made.size < 4
    assert (masked[short] == 1).all()
    only = made.num_spans == 1
    assert (masked[only] <= np.maximum(made.size[only] // 2, 1)).all()


def test_the_least_mask_ratio_takes_one_span():
    with warnings.catch_warnings(action="error"):
        made = plan([500] * 20, mask_ratio=1e-300)
    assert (made.num_spans == 1).all()


def test_single_span():
    made = plan([100] * 3000, single=True)
    assert (made.num_spans == 1).all()
    assert_distribution(made.length, LENGTHS)
    start = made.start[made.length == 3]
    assert stats.chisquare(np.bincount(start, minlength=98)).pvalue > 1e-4
    # Token t is masked in min(t + 1, l) of the n - l + 1 starts of a span of l tokens.
    masked = masked_slots(plan([100] * 20_000, single=True))
    assert_both_ends_alike(masked)
    lengths = np.arange(1, 40)
    for slot in (0, 1, 3, 50):
        covered = np.minimum(np.minimum(slot + 1, lengths), 100 - slot)
        predicted = LENGTHS.probabilities @ (covered / (101 - lengths))
        error = masked[:, slot].std() / np.sqrt(len(masked))
        assert abs(masked[:, slot].mean() - predicted) < ERRORS * error


def test_spans_have_a_free_token_between_them_and_stay_inside():
    made = plan(np.random.default_rng(0).integers(1, 300, 2000), mask_ratio=0.5)
    segment = group_of(made.num_spans)
    end = made.start + made.length
    assert (made.start >= 0).all()
    assert (end <= made.size[segment]).all()
    later = within_groups(made.num_spans) > 0
    assert (made.start[later] > end[:-1][later[1:]]).all()


def test_where_spans_do_not_fit_fewer_are_taken_and_counted():
    crowded = plan([50] * 200, mask_ratio=0.95, mean_span_length=1.0)
    assert crowded.fewer.all()
    assert (crowded.num_spans >= 1).all()
    assert not plan([500] * 200).fewer.any()


def test_placement_is_that_of_place_spans():
    sizes = np.array([30, 9, 200])
    segments, draws, config = whole_documents(sizes), draws_of(3), ObjectiveConfig()
    candidates = SpanCandidates.draw(segments, sizes, draws, LENGTHS, config, single=False)
    number = candidates.number(sizes)
    placed = place(candidates, number, sizes, segments.counts, draws)
    words = draws.integers(Purpose.PLACE, number)
    for p in range(3):
        mine = slice(starts(number)[p], starts(number)[p] + number[p])
        lengths = placed.length[mine]
        free = sizes[p] - lengths.sum() - number[p] + 2
        spans = place_spans(lengths, sizes[p], below(words[mine], free))
        assert [s for s, _ in spans] == placed.start[mine].tolist()


def test_order_in_part_b_is_a_uniform_permutation():
    made = plan([500] * 6000, mask_ratio=0.02, mean_span_length=3.0)
    first = starts(made.num_spans)[made.num_spans == 3]
    orders = made.order[first[:, None] + np.arange(3)] - first[:, None]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4


def test_order_of_the_text():
    made = plan([300] * 20, shuffle_spans=False)
    np.testing.assert_array_equal(made.order, np.arange(len(made.order)))
    assert (plan([300] * 20).order != made.order).any()


@pytest.mark.parametrize("length", [16, 33, 64, 200])
def test_the_largest_size_that_fits_is_taken(length):
    """The corrupted length never exceeds the row, and two more tokens would never fit."""
    sizes = np.full(500, 1000)
    segments, draws, config = whole_documents(sizes), draws_of(500), ObjectiveConfig()
    made = plan(sizes, length=length)
    used = 1 + made.size + 2 * made.num_spans
    assert (used <= length).all()
    assert (used >= length - 2).all()
    limit = np.minimum(sizes, length)
    candidates = SpanCandidates.draw(segments, limit, draws, LENGTHS, config, single=False)
    more = made.size + 1
    assert (1 + more + 2 * candidates.number(more) > length).all()
    np.testing.assert_array_equal(candidates.number(made.size), made.num_spans)


def test_short_beginnings_are_left_out_at_the_end_of_a_row_only():
    # A document of 20 tokens and one of 50 in a row of 40 slots: some 14 are left for the second.
    sizes = np.tile([20, 50], 500)
    segments = Segments(np.full(500, 2), starts(sizes), sizes, sizes > 0, sizes > 0)
    for length, kept in ((40, True), (32, False)):
        made = plan_spans(segments, draws_of(500), length, LENGTHS, ObjectiveConfig())
        second = made.size[within_groups(np.bincount(made.row)) == 1]
        assert (len(second) > 250) == kept
        assert (second >= SHORTEST_BEGINNING).all()
        assert (np.unique(made.row) == np.arange(500)).all()
    alone = plan([50] * 100, length=16)
    assert len(alone.row) == 100
