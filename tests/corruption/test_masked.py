"""Masked LM, one text; rows of many are in `test_rows.py`."""

from glm_jax.batch import SPAN
from glm_jax.corruption.masked import assemble_masked

C, E, M, a, b, c, d = 1, 0, 2, 101, 102, 103, 104


def test_docstring_example():
    fields = assemble_masked([C, a, b, c, d, E], [(1, 3)], mask_id=M)
    assert {name: value.tolist() for name, value in fields.items()} == {
        "tokens": [C, M, M, c, d, E],
        "targets": [C, a, b, c, d, E],
        "loss_weights": [0, 1, 1, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 5],
        "block_positions": [0] * 6,
        "attend_start": [0] * 6,
        "attend_end": [6] * 6,
        "objective": [0, SPAN, SPAN, 0, 0, 0],
    }
