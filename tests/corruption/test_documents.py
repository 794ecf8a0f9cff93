"""The document objective: how long the stretch is, and where."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.documents import plan_documents
from glm_jax.corruption.plan import Segments
from glm_jax.draws import Draws
from glm_jax.ragged import starts
from tests.corruption.measured import ERRORS, assert_both_ends_alike, masked_slots


def plan(size, rows, length=4096, **options):
    sizes = np.full(rows, size)
    yes = np.ones(rows, bool)
    segments = Segments(np.ones(rows, np.int64), starts(sizes), sizes, yes, yes)
    draws = Draws(0, np.zeros(rows, np.int64), np.arange(rows))
    return plan_documents(segments, draws, length, ObjectiveConfig(**options))


@pytest.mark.parametrize(("low", "high"), [(0.25, 1.0), (0.5, 1.0), (0.3, 0.6)])
def test_stretch_is_uniform_between_the_ratios(low, high):
    made = plan(98, 6000, document_min_ratio=low, document_max_ratio=high)  # n = 100
    top = min(int(100 * high), 98)
    counts = np.bincount(made.length, minlength=101)
    assert counts[: int(100 * low)].sum() == counts[top + 1 :].sum() == 0
    inside = counts[int(100 * low) : top + 1].astype(float)
    predicted = np.ones(len(inside))
    if high == 1.0:
        predicted[-1] = 3  # 99 and 100 are cut to n - 2
    assert stats.chisquare(inside, predicted / predicted.sum() * 6000).pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_share_of_the_prefix_form(rate):
    made = plan(98, 4000, document_prefix_rate=rate)
    prefix = ~made.closed
    assert abs(prefix.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 4000) + 1e-9
    # It ends with eos, token `size`; the middle form ends before it.
    end = made.start + made.length
    assert (end[prefix] == 99).all()
    assert (end[~prefix] <= 98).all()
    assert (made.start >= 0).all()


def test_middle_form_lies_anywhere():
    made = plan(98, 5000, document_prefix_rate=0.0, document_min_ratio=0.5, document_max_ratio=0.5)
    assert (made.length == 50).all()
    assert stats.chisquare(np.bincount(made.start, minlength=49)).pvalue > 1e-4


def test_middle_form_masks_start_and_end_alike():
    """Token t is masked in min(t + 1, g, ...) of the 98 - g + 1 starts of a stretch of g."""
    made = plan(98, 20_000, document_prefix_rate=0.0, document_min_ratio=0.2)
    masked = masked_slots(made)
    assert_both_ends_alike(masked)
    for slot in (0, 10, 48):
        ways = np.minimum(np.minimum(slot + 1, made.length), 99 - made.length)
        predicted = (ways / (99 - made.length)).mean()
        error = masked[:, slot].std() / np.sqrt(len(masked))
        assert abs(masked[:, slot].mean() - predicted) < ERRORS * error


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_cut_texts_fill_the_row(rate):
    made = plan(500, 300, length=100, document_prefix_rate=rate)
    assert not made.eos.any()
    # n tokens give n + 1 slots in the prefix form, n + 2 in the middle form, [CLS] included.
    assert (1 + made.size + (1 if rate else 2) == 100).all()
    assert ((made.start + made.length == made.size) | (rate == 0)).all()


def test_a_text_of_one_token():
    for rate in (0.0, 1.0):
        made = plan(1, 50, document_prefix_rate=rate)
        assert (made.length == 1).all()
        assert (made.start == rate).all()  # eos in the prefix form, the token in the other
