"""The objective of each row, drawn at its rate; distributions against the published ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from glm_jax.batch import CAUSAL, DOCUMENT, SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig, PublishedOptions
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.plan import Segments
from glm_jax.draws import Draws
from glm_jax.special_tokens import SpecialTokens

STATS = Path(__file__).parents[1] / "golden" / "glm" / "stats"
SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)


def kinds(rows=20_000, **rates):
    corruptor = Corruptor(ObjectiveConfig(**rates), SPECIAL, np.zeros(100, bool), 64, 0)
    return corruptor.kinds(Draws(0, np.zeros(rows, np.int64), np.arange(rows)))


def test_rates():
    drawn = kinds(span_rate=0.5, sentence_rate=0.3, document_rate=0.2, single_span_rate=0.4)
    single, span, sentence, document = (
        (drawn == kind).sum() for kind in (-1, SPAN, SENTENCE, DOCUMENT)
    )
    observed = [single, span, sentence, document]
    assert stats.chisquare(observed, 20_000 * np.array([0.2, 0.3, 0.3, 0.2])).pvalue > 1e-4


def test_causal_rows_take_their_share():
    drawn = kinds(span_rate=0.5, document_rate=0.2, causal_rate=0.3)
    observed = [(drawn == kind).sum() for kind in (SPAN, DOCUMENT, CAUSAL)]
    assert stats.chisquare(observed, 20_000 * np.array([0.5, 0.2, 0.3])).pvalue > 1e-4


@pytest.mark.parametrize(
    ("rates", "kind"),
    [
        ({}, SPAN),
        ({"single_span_rate": 1.0}, -1),
        ({"span_rate": 0.0, "sentence_rate": 1.0}, SENTENCE),
        ({"span_rate": 0.0, "document_rate": 1.0}, DOCUMENT),
        ({"span_rate": 0.9999995}, SPAN),
        ({"span_rate": 0.0, "sentence_rate": 0.9999995}, SENTENCE),
        ({"span_rate": 0.0, "causal_rate": 1.0}, CAUSAL),
    ],
)
def test_one_objective_only(rates, kind):
    assert set(kinds(**rates).tolist()) == {kind}


@pytest.mark.parametrize(
    ("rates", "kind"),
    [
        ({"span_rate": 0.9999995}, SPAN),
        ({"span_rate": 0.0, "sentence_rate": 0.9999995}, SENTENCE),
        ({"span_rate": 0.5, "document_rate": 0.4999995}, DOCUMENT),
    ],
)
def test_what_the_rates_leave_goes_to_the_last_in_use(rates, kind):
    """The highest draw there is, 2^32 - 1, lies beyond rates that sum to a little less than 1."""

    class Highest(Draws):
        def integers(self, purpose, counts):
            return np.full(int(np.sum(counts)), 2**32 - 1)

    corruptor = Corruptor(ObjectiveConfig(**rates), SPECIAL, np.zeros(100, bool), 64, 0)
    drawn = corruptor.kinds(Highest(0, np.zeros(3, np.int64), np.arange(3)))
    assert drawn.tolist() == [kind] * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"published": PublishedOptions(masked_lm=True)},
        {"span_rate": 0.0, "document_rate": 1.0},
        {"span_rate": 0.0, "causal_rate": 1.0},
    ],
    ids=["spans", "masked", "documents", "causal"],
)
def test_what_is_counted_is_what_rows_hold(options):
    rows, size = 30, 50
    ends = np.ones(rows, bool)
    segments = Segments(np.ones(rows, np.int64), np.zeros(rows, np.int64), size * ends, ends, ends)
    corruptor = Corruptor(ObjectiveConfig(**options), SPECIAL, np.zeros(100, bool), 128, 0)
    stored = np.arange(size) % 80 + 20
    fields, counted = corruptor.build(segments, stored, np.zeros(rows, np.int64), np.arange(rows))
    assert counted["rows"] == rows
    assert counted["places_used"] == (fields["attend_end"] > 0).sum()
    assert counted["targets"] == (fields["loss_weights"] > 0).sum()


def test_laws_that_published_rows_have_too():
    """Length of spans, order in part B, hidden inputs: texts of 512 tokens, one per row."""
    rows, size = 3000, 510
    config = ObjectiveConfig(published=PublishedOptions(block_mask_rate=0.1, block_mask_id=100))
    ends = np.ones(rows, bool)
    segments = Segments(np.ones(rows, np.int64), np.zeros(rows, np.int64), size * ends, ends, ends)
    corruptor = Corruptor(config, SPECIAL, np.zeros(100, bool), 640, 0)
    stored = np.arange(size) % 80 + 20
    fields, _ = corruptor.build(segments, stored, np.zeros(rows, np.int64), np.arange(rows))
    first = fields["block_positions"] == 1
    row, slot = np.nonzero(first)
    inside = fields["loss_weights"] > 0
    # A span's slots reach up to the next one's, and to the end of part B in each row.
    same_row = np.append(row[1:] == row[:-1], False)
    used = (fields["attend_end"] > 0).sum(axis=1)
    length = np.where(same_row, np.append(slot[1:], 0), used[row]) - slot - 1

    golden = json.loads((STATS / "span_full.json").read_text())["modes"]["bert"]
    theirs = golden["span_length"]["histogram"]
    table = np.zeros((2, 40))
    for value, count in theirs.items():
        table[0, int(value)] = count
    table[1] = np.bincount(length, minlength=40)
    common = table[1] >= 5
    table = np.column_stack([table[:, common], table[:, ~common].sum(axis=1)])
    assert stats.chi2_contingency(table).pvalue > 1e-4

    mask = fields["positions"][row, slot]
    spans = np.bincount(row)
    begin = np.append(0, np.cumsum(spans)[:-1])
    leftmost = mask[begin] == np.minimum.reduceat(mask, begin)
    expected = (1 / spans).mean()
    assert abs(leftmost.mean() - expected) < 5 * np.sqrt(expected / rows)
    assert abs(expected - golden["expected_leftmost_first_if_uniform"]) < 0.002

    inputs = inside & (fields["block_positions"] > 1)
    hidden = (fields["tokens"][inputs] == 100).mean()
    mixture = json.loads((STATS / "mixture_10B.json").read_text())["modes"]["bert"]
    error = np.sqrt(0.09 / inputs.sum())
    assert abs(hidden - mixture["dblock_fraction_of_masked_tokens"]) < 5 * 1.2 * error
