"""The objective of each row, drawn at its rate."""

import numpy as np
import pytest
from scipy import stats

from glm_jax.batch import CAUSAL, DOCUMENT, SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.corruption.draws import Draws
from glm_jax.special_tokens import SpecialTokens

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
