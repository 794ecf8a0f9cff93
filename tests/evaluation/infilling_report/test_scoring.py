"""Likelihoods by order against rows made by hand, and what must hold of any model's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SPAN, Batch
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.corruption import assemble
from glm_jax.corruption.assembly import assemble_prefix
from glm_jax.evaluation.infilling_report import scoring
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.scoring import score
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=1, pad=0)
T = 24
CONFIG = ModelConfig(
    vocab_size=40,
    num_layers=2,
    embed_dim=32,
    num_heads=2,
    max_positions=T,
    dropout_rate=0.0,
    attention_dropout_rate=0.0,
    initializer_range=0.3,
)
TOKENS = [8, 20, 21, 22, 23, 24, 25, 26, 27, 1]
THREE = HeldOutText(0, SPAN, TOKENS, [(1, 3), (4, 5), (7, 9)], True, 0, 8)
TWO = HeldOutText(1, SPAN, TOKENS[::-1], [(2, 3), (5, 8)], True, 3, 40)
ONE = HeldOutText(2, SPAN, TOKENS[:7], [(2, 6)], True, 0, 6)
SIX = HeldOutText(3, SPAN, TOKENS, [(i, i + 1) for i in range(1, 7)], True, 0, 8)


@pytest.fixture(scope="module")
def lm():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(CONFIG, create_params(CONFIG, mesh, 0))


@pytest.fixture(scope="module")
def scored(lm):
    texts = [THREE, TWO, ONE, SIX]
    return score(lm, texts, SPECIAL, SPECIAL.mask, length=T, most_orders=6, seed=0)


def losses_by_hand(lm, fields):
    """-log p of each target of one row, from the logits of that row alone."""
    batch = Batch(**{name: value[None] for name, value in fields.items()})
    logits = np.asarray(lm.logits(batch), np.float64)[0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return [-log_p[i, fields["targets"][i]] for i in np.flatnonzero(fields["loss_weights"])]


IDS = {"mask_id": SPECIAL.mask, "start_id": SPECIAL.start, "end_id": SPECIAL.end}


def test_each_order_has_the_losses_of_the_row_made_by_hand(lm, scored):
    """All six orders of three spans; the targets are ab E | d E | gh E in the text."""
    three = scored[0]
    assert three.losses.shape == (6, 8)
    assert three.sizes.tolist() == [3, 2, 3]
    slots = {0: [0, 1, 2], 1: [3, 4], 2: [5, 6, 7]}
    for order, found in zip(three.orders.orders.tolist(), three.losses, strict=True):
        expected = losses_by_hand(lm, assemble(TOKENS, THREE.spans, order, **IDS))
        where = [slot for span in order for slot in slots[span]]
        np.testing.assert_allclose(found[where], expected, rtol=1e-5, atol=1e-5)
    assert three.totals.std() > 0.1  # orders do differ: the comparison is of something


def test_left_to_right_is_the_order_of_the_text(lm, scored):
    for one in scored[:3]:
        fields = assemble(one.text.tokens, one.text.spans, range(len(one.text.spans)), **IDS)
        expected = losses_by_hand(lm, fields)
        np.testing.assert_allclose(one.losses[0], expected, rtol=1e-5, atol=1e-5)
        batch = Batch(**{name: value[None] for name, value in fields.items()})
        assert -one.totals[0] / len(expected) == pytest.approx(float(lm.loss(batch)), rel=1e-5)


def test_mean_marginal_and_spread_of_all_orders(lm, scored):
    """By the definitions, from the orders of two spans and of three."""
    for one in scored[:2]:
        spans = len(one.text.spans)
        totals = [
            -sum(losses_by_hand(lm, assemble(one.text.tokens, one.text.spans, order, **IDS)))
            for order in itertools.permutations(range(spans))
        ]
        assert -one.mean_losses.sum() == pytest.approx(np.mean(totals), rel=1e-5)
        assert one.marginal == pytest.approx(np.log(np.mean(np.exp(totals))), rel=1e-5)
        assert one.spread == pytest.approx(np.std(totals), rel=1e-3)
        assert -one.mean_losses.sum() < one.marginal < max(totals)


def test_one_span_has_one_order(scored):
    one = scored[2]
    assert one.losses.shape == (1, 5)
    assert one.spread == 0.0
    assert one.marginal == pytest.approx(float(one.totals[0]))


def test_many_spans_have_drawn_orders_and_the_directions_beside_them(lm, scored):
    six = scored[3]
    assert six.orders.chosen.sum() == 6
    sample = six.totals[six.orders.chosen]
    assert six.spread == pytest.approx(sample.std(ddof=1))
    assert six.marginal == pytest.approx(np.log(np.exp(sample).mean()))
    backwards = losses_by_hand(lm, assemble(TOKENS, SIX.spans, range(6)[::-1], **IDS))
    assert six.totals[1] == pytest.approx(-sum(backwards), rel=1e-5)


def test_where_spans_are_independent_the_order_does_not_matter(lm):
    """Without attention a token knows itself and its positions, which no order changes."""

    def silent(path, leaf):
        return jnp.zeros_like(leaf) if "attention" in jax.tree_util.keystr(path) else leaf

    params = jax.tree_util.tree_map_with_path(silent, lm.params)
    deaf = LanguageModel(CONFIG, params)
    (one,) = score(deaf, [THREE], SPECIAL, SPECIAL.mask, length=T, most_orders=6, seed=0)
    assert len(one.totals) == 6
    assert one.spread < 1e-5
    assert one.marginal == pytest.approx(one.totals.mean(), abs=1e-5)
    assert one.losses.std(axis=1).min() > 0.1  # tokens differ all the same


def test_a_stretch_without_an_end(lm):
    text = HeldOutText(0, DOCUMENT, TOKENS, [(6, 10)], False, 0, 8)
    (one,) = score(lm, [text], SPECIAL, SPECIAL.gmask, length=T, most_orders=1, seed=0)
    fields = assemble_prefix(TOKENS, 4, mask_id=SPECIAL.gmask, start_id=SPECIAL.start)
    np.testing.assert_allclose(one.losses[0], losses_by_hand(lm, fields), rtol=1e-5, atol=1e-5)


def test_batches_have_one_shape_and_change_nothing(lm, scored, monkeypatch):
    shapes = []
    real = scoring.losses_of_targets
    monkeypatch.setattr(scoring, "_SLOTS", 4 * T)
    monkeypatch.setattr(
        scoring,
        "losses_of_targets",
        lambda lm, batch: shapes.append(batch.shape) or real(lm, batch),
    )
    texts = [one.text for one in scored]
    again = score(lm, texts, SPECIAL, SPECIAL.mask, length=T, most_orders=6, seed=0)
    assert len(shapes) > 3
    assert set(shapes) == {(4, T)}
    for one, other in zip(again, scored, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5, atol=1e-5)
