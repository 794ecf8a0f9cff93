"""Tests of glm_jax.special_tokens."""

import dataclasses

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.special_tokens import SPELLINGS, SpecialTokens


def test_every_role_has_a_spelling_of_its_own():
    roles = [field.name for field in dataclasses.fields(SpecialTokens)]
    assert list(SPELLINGS) == roles
    assert len(set(SPELLINGS.values())) == len(roles)


def test_masks_are_the_three_blanks():
    tokens = SpecialTokens(mask=2, gmask=7, smask=8, start=5, end=6, cls=1, eos=0, pad=0)
    assert tokens.masks == (2, 7, 8)


def test_masks_by_objective():
    tokens = SpecialTokens(mask=2, gmask=7, smask=8, start=5, end=6, cls=1, eos=0, pad=0)
    masks = tokens.masks_by_objective()
    assert (masks[SPAN], masks[SENTENCE], masks[DOCUMENT]) == (2, 8, 7)
    assert tokens.masks_by_objective(task_masks=False) == (0, 2, 2, 2)
    assert tokens.block is None
