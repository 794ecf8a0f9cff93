"""Tokens hidden by [dBLOCK], in part B and in part A."""

import dataclasses

import numpy as np
import pytest

from glm_jax.batch import SENTENCE, SPAN
from glm_jax.config import ObjectiveConfig, PublishedOptions
from glm_jax.corruption import AssemblyOptions, assemble
from glm_jax.corruption.hiding import block_id, hide_context, hide_inputs
from glm_jax.draws import Draws
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
HIDDEN = 20
TEXT = [8, *range(30, 50), 9]  # C, twenty tokens, E
SPANS = [(2, 5), (12, 13)]


def draws_of(rows):
    return Draws(0, np.zeros(rows, np.int64), np.arange(rows))


def rows(count, objective=SPAN, mask=SPECIAL.mask, **options):
    ids = {"mask_id": mask, "start_id": 6, "end_id": 7, **options}
    text = assemble(TEXT, SPANS, [1, 0], **ids, options=AssemblyOptions(objective=objective))
    return {name: np.tile(np.append(value, [0, 0]), (count, 1)) for name, value in text.items()}


def test_inputs_of_spans_at_the_rate():
    fields = rows(3000)
    before = {name: value.copy() for name, value in fields.items()}
    hide_inputs(fields, draws_of(3000), 0.1, HIDDEN)
    changed = fields["tokens"] != before["tokens"]
    # Four tokens are inputs in part B, each behind its start token.
    slots = np.flatnonzero(before["block_positions"][0] > 1)
    assert len(slots) == 4
    assert set(np.flatnonzero(changed.any(axis=0))) == set(slots)
    assert set(fields["tokens"][changed]) == {HIDDEN}
    share = changed[:, slots].mean(axis=0)
    assert (abs(share - 0.1) < 5 * np.sqrt(0.09 / 3000)).all()
    for name in set(fields) - {"tokens"}:
        np.testing.assert_array_equal(fields[name], before[name])


def test_sentences_are_not_hidden():
    fields = rows(50, SENTENCE, SPECIAL.smask)
    before = fields["tokens"].copy()
    hide_inputs(fields, draws_of(50), 1.0, HIDDEN)
    hide_context(fields, draws_of(50), 1.0, HIDDEN, SPECIAL)
    np.testing.assert_array_equal(fields["tokens"], before)


@pytest.mark.parametrize("sentinel", [None, 60])
def test_context_near_masks(sentinel):
    masks = SPECIAL.mask if sentinel is None else [SPECIAL.mask, sentinel]
    fields = rows(2000, mask=masks)
    before = {name: value.copy() for name, value in fields.items()}
    hide_context(fields, draws_of(2000), 0.16, HIDDEN, SPECIAL, sentinel)
    changed = fields["tokens"] != before["tokens"]
    # Part A: C 30 M 34 .. 40 M 42 .. 49 E. Of the 22 tokens of the text 3 are hidden.
    assert (changed.sum(axis=1) == 3).all()
    near = [1, 3, 4, 5, 7, 8, 9, 11, 12, 13]
    assert set(np.flatnonzero(changed.any(axis=0))) == set(near)
    share = changed[:, near].mean(axis=0)
    assert (abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)).all()
    assert set(fields["tokens"][changed]) == {HIDDEN}
    np.testing.assert_array_equal(fields["targets"], before["targets"])


def test_the_budget_is_a_share_of_the_text_alone():
    """Of C, twenty tokens and E: 0.13 * 22 is 2.9; start tokens counted too, 0.13 * 24 is 3.1."""
    fields = rows(40)
    before = fields["tokens"].copy()
    hide_context(fields, draws_of(40), 0.13, HIDDEN, SPECIAL)
    assert ((fields["tokens"] != before).sum(axis=1) == 2).all()


def test_context_does_not_reach_into_the_next_text():
    ids = {"mask_id": 3, "start_id": 6, "end_id": 7}
    first = assemble([8, 30, 31, 32], [(3, 4)], [0], **ids)
    second = assemble([8, 40, 41, 42, 43, 44, 45, 46, 47], [(7, 8)], [0], **ids)
    fields = {
        name: np.append(value, second[name] + (len(value) if name.startswith("attend") else 0))
        for name, value in first.items()
    }
    fields = {name: value[None].copy() for name, value in fields.items()}
    hide_context(fields, draws_of(1), 1.0, HIDDEN, SPECIAL)
    expected = [8, HIDDEN, HIDDEN, 3, 6, 32, 8, 40, 41, 42, HIDDEN, HIDDEN, HIDDEN, 3, HIDDEN]
    assert fields["tokens"][0].tolist() == [*expected, 6, 46]


def test_the_id_of_dblock():
    own = dataclasses.replace(SPECIAL, block=10)

    def found(special, **options):
        config = ObjectiveConfig(published=PublishedOptions(**options))
        return block_id(config, special, vocab_size=50)

    assert found(own) == -1
    assert found(own, block_mask_rate=0.1) == 10
    assert found(own, block_mask_rate=0.1, block_mask_id=10) == 10
    assert found(own, block_mask_rate=0.1, block_mask_id=50) == 50
    assert found(SPECIAL, context_mask_ratio=0.1, block_mask_id=51) == 51
    said = r"objective\.published\.block_mask_rate=0\.1 needs .*dBLOCK.*lacks"
    with pytest.raises(UserError, match=said):
        found(SPECIAL, block_mask_rate=0.1)
    for name in ("block_mask_id", "sentinel_id"):
        said = rf"objective\.published\.{name} must be an id that text does not"
        with pytest.raises(UserError, match=said):
            found(own, block_mask_rate=0.1, **{name: 49})
