"""The laws of the span objective: lengths, masked share, placement, order."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.config import ObjectiveConfig
from glm_jax.corruption import place_spans
from glm_jax.corruption.draws import Draws, Purpose, SpanLengths, below
from glm_jax.corruption.plan import SHORTEST_BEGINNING, Pieces
from glm_jax.corruption.ragged import group_of, starts, sums, within_groups
from glm_jax.corruption.spans import SpanCandidates, place, plan_spans

LENGTHS = SpanLengths.poisson(3.0, 39)


def whole_documents(sizes):
    """One document per row, each of its own size."""
    sizes = np.asarray(sizes, np.int64)
    yes = np.ones(len(sizes), bool)
    return Pieces(np.ones(len(sizes), np.int64), starts(sizes), sizes, yes, yes)


def draws_of(rows, seed=0):
    return Draws(seed, np.zeros(rows, np.int64), np.arange(rows))


def plan(sizes, length=4096, single=False, seed=0, **options):
    config = ObjectiveConfig(**options)
    law = SpanLengths.poisson(config.mean_span_length, config.max_span_length)
    return plan_spans(
        whole_documents(sizes), draws_of(len(sizes), seed), length, law, config, single
    )


def assert_law(lengths, law):
    n = len(lengths)
    counts = np.bincount(lengths, minlength=len(law.probabilities) + 1)[1:]
    common = law.probabilities * n >= 5
    observed = [*counts[common], counts[~common].sum()]
    predicted = [*(law.probabilities[common] * n), law.probabilities[~common].sum() * n]
    assert stats.chisquare(observed, predicted).pvalue > 1e-4


@pytest.mark.parametrize("size", [40, 120, 500])
def test_lengths_keep_their_law_however_many_fit(size):
    assert_law(plan([size] * 3000).length, LENGTHS)


def test_lengths_keep_their_law_in_rows_cut_to_fit():
    cut = plan([1000] * 3000, length=256)
    assert (cut.size < 256).all()
    assert_law(cut.length, LENGTHS)


@pytest.mark.parametrize("ratio", [0.1, 0.15, 0.2])
@pytest.mark.parametrize("size", [40, 60, 128, 500])
def test_masked_share(size, ratio):
    made = plan([size] * 4000, mask_ratio=ratio)
    masked = sums(made.length, made.num_spans)
    error = masked.std() / np.sqrt(len(masked))
    # The overshoot of a renewal process settles within a few spans.
    assert abs(masked.mean() - ratio * size) < 4 * error + (0.15 if ratio * size < 12 else 0)


def test_every_text_gets_a_span_and_keeps_half():
    made = plan(np.arange(1, 15).repeat(300))
    assert (made.num_spans >= 1).all()
    assert made.fewer.any()
    masked = sums(made.length, made.num_spans)
    short = made.size < 4
    assert (masked[short] == 1).all()
    first = made.length[starts(made.num_spans)]
    assert (first <= np.maximum(made.size // 2, 1)).all()


def test_single_span():
    made = plan([100] * 3000, single=True)
    assert (made.num_spans == 1).all()
    assert_law(made.length, LENGTHS)
    start = made.start[made.length == 3]
    assert stats.chisquare(np.bincount(start, minlength=98)).pvalue > 1e-4


def test_spans_have_a_free_token_between_them_and_stay_inside():
    made = plan(np.random.default_rng(0).integers(1, 300, 2000), mask_ratio=0.5)
    piece = group_of(made.num_spans)
    end = made.start + made.length
    assert (made.start >= 0).all()
    assert (end <= made.size[piece]).all()
    later = within_groups(made.num_spans) > 0
    assert (made.start[later] > end[:-1][later[1:]]).all()


def test_where_spans_do_not_fit_fewer_are_taken_and_counted():
    crowded = plan([50] * 200, mask_ratio=0.95, mean_span_length=1.0)
    assert crowded.fewer.all()
    assert (crowded.num_spans >= 1).all()
    assert not plan([500] * 200).fewer.any()


def test_placement_is_that_of_place_spans():
    sizes = np.array([30, 9, 200])
    pieces, draws, config = whole_documents(sizes), draws_of(3), ObjectiveConfig()
    candidates = SpanCandidates.draw(pieces, sizes, draws, LENGTHS, config, single=False)
    number = candidates.number(sizes)
    placed = place(candidates, number, sizes, pieces.counts, draws)
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
    pieces, draws, config = whole_documents(sizes), draws_of(500), ObjectiveConfig()
    made = plan(sizes, length=length)
    used = 1 + made.size + 2 * made.num_spans
    assert (used <= length).all()
    assert (used >= length - 2).all()
    limit = np.minimum(sizes, length)
    candidates = SpanCandidates.draw(pieces, limit, draws, LENGTHS, config, single=False)
    more = made.size + 1
    assert (1 + more + 2 * candidates.number(more) > length).all()
    np.testing.assert_array_equal(candidates.number(made.size), made.num_spans)


def test_short_beginnings_are_left_out_at_the_end_of_a_row_only():
    # A document of 20 tokens and one of 50 in a row of 40 places: some 14 are left for the second.
    sizes = np.tile([20, 50], 500)
    pieces = Pieces(np.full(500, 2), starts(sizes), sizes, sizes > 0, sizes > 0)
    for length, kept in ((40, True), (32, False)):
        made = plan_spans(pieces, draws_of(500), length, LENGTHS, ObjectiveConfig())
        second = made.size[within_groups(np.bincount(made.row)) == 1]
        assert (len(second) > 250) == kept
        assert (second >= SHORTEST_BEGINNING).all()
        assert (np.unique(made.row) == np.arange(500)).all()
    alone = plan([50] * 100, length=16)
    assert len(alone.row) == 100
