"""The shift of first positions."""

import numpy as np
from scipy import stats

from glm_jax.corruption import AssemblyOptions, assemble
from glm_jax.corruption.shifting import shift_positions
from glm_jax.draws import Draws


def rows_of_two_texts(rows, span_position=None):
    """C a M c E S b, then C M e S d, then padding: 16 slots."""
    options = AssemblyOptions(span_position=span_position)
    ids = {"mask_id": 3, "start_id": 6, "end_id": 7, "options": options}
    first = assemble([8, 30, 31, 32, 9], [(2, 3)], [0], **ids)
    second = assemble([8, 33, 34], [(1, 2)], [0], **ids)
    fields = {}
    for name, value in first.items():
        shift = 7 if name in ("attend_start", "attend_end") else 0
        row = np.concatenate([value, second[name] + shift, np.zeros(4, value.dtype)])
        fields[name] = np.tile(row, (rows, 1))
    return fields


def shifted(rows, **options):
    fields = rows_of_two_texts(rows, **options)
    before = {name: value.copy() for name, value in fields.items()}
    shift_positions(fields, Draws(0, np.zeros(rows, np.int64), np.arange(rows)))
    for name, value in before.items():
        if name != "positions":
            np.testing.assert_array_equal(fields[name], value)
    return fields["positions"] - before["positions"]


def test_each_text_by_a_draw_of_its_own():
    shift = shifted(6000)
    assert (shift[:, :7] == shift[:, :1]).all()
    assert (shift[:, 7:12] == shift[:, 7:8]).all()
    assert not shift[:, 12:].any()
    # T = 16; the last positions are 4 and 2.
    for column, highest in ((0, 4), (7, 2)):
        counts = np.bincount(shift[:, column], minlength=16 - highest)
        assert len(counts) == 16 - highest
        assert stats.chisquare(counts).pvalue > 1e-4


def test_positions_of_sentinels_stay():
    shift = shifted(200, span_position=16)
    assert shift[:, :5].any()
    assert (shift[:, :5] == shift[:, :1]).all()
    assert not shift[:, 5:7].any()


def test_only_padding():
    fields = {name: np.zeros((2, 16), np.int32) for name in rows_of_two_texts(1)}
    shift_positions(fields, Draws(0, np.zeros(2, np.int64), np.arange(2)))
    assert not fields["positions"].any()
