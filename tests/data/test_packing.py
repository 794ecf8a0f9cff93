"""Short rows joined into longer ones: nothing lost, nobody sees more than before."""

import numpy as np

from glm_jax.data.packing import first_fit, pack_rows


def test_first_fit():
    rows, offsets = first_fit(np.array([5, 4, 3, 2]), 8)
    assert (rows.tolist(), offsets.tolist()) == ([0, 1, 0, 1], [0, 0, 5, 4])


def test_rows_are_joined_and_bounds_moved():
    fields = {
        "tokens": np.array([5, 6, 7, 1, 8, 9], np.int32),
        "positions": np.array([0, 1, 2, 0, 0, 1], np.int32),
        "loss_weights": np.array([0, 0, 1, 0, 0, 1], np.float32),
        "attend_start": np.array([0, 0, 0, 0, 0, 0], np.int32),
        "attend_end": np.array([2, 2, 3, 0, 1, 2], np.int32),
    }
    packed = pack_rows(fields, np.array([4, 2]), 6, pad_id=1)
    assert packed["tokens"].tolist() == [[5, 6, 7, 8, 9, 1]]
    assert packed["positions"].tolist() == [[0, 1, 2, 0, 1, 0]]
    assert packed["loss_weights"].tolist() == [[0, 0, 1, 0, 1, 0]]
    assert packed["attend_start"].tolist() == [[0, 0, 0, 3, 3, 0]]
    assert packed["attend_end"].tolist() == [[2, 2, 3, 4, 5, 0]]
    assert {value.dtype for value in packed.values()} == {np.dtype("i4"), np.dtype("f4")}


def test_full_rows_stay_as_they_are():
    ends = np.tile(np.arange(1, 5, dtype=np.int32), 3)
    fields = {"tokens": np.arange(12), "attend_end": ends, "attend_start": np.zeros(12, np.int32)}
    packed = pack_rows(fields, np.array([4, 4, 4]), 4, pad_id=0)
    np.testing.assert_array_equal(packed["tokens"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(packed["attend_end"], ends.reshape(3, 4))


def test_no_rows():
    fields = {"tokens": np.zeros(0, np.int32), "attend_end": np.zeros(0, np.int32)}
    assert pack_rows(fields, np.zeros(0, int), 4, 0)["tokens"].shape == (0, 4)
