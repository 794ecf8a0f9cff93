"""Causal rows, slot by slot."""

import numpy as np
import pytest

from glm_jax.batch import CAUSAL
from glm_jax.config import ObjectiveConfig
from glm_jax.corruption.causal import write_causal
from glm_jax.corruption.plan import Segments
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
G, S, E, P = SPECIAL.gmask, SPECIAL.start, SPECIAL.eos, SPECIAL.pad
CONFIG = ObjectiveConfig(span_rate=0.0, causal_rate=1.0, causal_weight=0.5)


def segments(counts, source, size, ends):
    begins = np.ones(len(source), bool)
    arrays = (counts, source, size, begins, np.array(ends, bool))
    return Segments(*(np.asarray(array) for array in arrays))


def write(length, *of_segments):
    return write_causal(segments(*of_segments), np.arange(30, 80), length, SPECIAL, CONFIG)


def test_two_texts_of_a_row():
    fields, counted = write(12, [2], [0, 4], [4, 2], [True, True])
    expected = {
        "tokens": [G, S, 30, 31, 32, 33, G, S, 34, 35, P, P],
        "targets": [S, 30, 31, 32, 33, E, S, 34, 35, E, P, P],
        "loss_weights": [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0, 0],
        "positions": [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 0],
        "block_positions": [0] * 12,
        "attend_start": [0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 0, 0],
        "attend_end": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0],
        "objective": [CAUSAL * (w > 0) for w in (0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0)],
    }
    assert {name: value.tolist() for name, value in fields.items()} == {
        name: [value] for name, value in expected.items()
    }
    assert counted == {"rows": 1, "places_used": 10, "source_tokens": 6, "targets": 8}


@pytest.mark.parametrize(
    ("source", "size", "ends", "last_token", "last_target"),
    [
        (0, 20, True, 37, 38),  # cut by the row: the last target is the next token
        (0, 8, True, 37, E),  # fits to the last slot, eos a target only
        (0, 8, False, 37, 38),  # cut by the window
        (42, 8, True, 79, E),  # the last stored token
    ],
)
def test_the_end_of_a_full_row(source, size, ends, last_token, last_target):
    fields, counted = write(10, [1], [source], [size], [ends])
    assert (fields["tokens"][0, -1], fields["targets"][0, -1]) == (last_token, last_target)
    assert counted["places_used"] == 10
    assert counted["source_tokens"] == 8


def test_too_little_room_for_a_beginning():
    """Fewer than 8 tokens of a second text are left out, and a row without segments is padding."""
    fields, _ = write(16, [2, 0], [0, 10], [5, 20], [True, True])
    assert (fields["attend_end"] > 0).sum(1).tolist() == [7, 0]
    assert set(fields["tokens"][1].tolist()) == {P}
    assert not fields["loss_weights"][1].any()
