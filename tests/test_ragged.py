"""Groups by hand."""

import numpy as np
import pytest

from glm_jax import ragged

SIZES = np.array([2, 0, 3])
VALUES = np.array([1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ragged.starts(SIZES), [0, 2, 2]),
        (ragged.within_groups(SIZES), [0, 1, 0, 1, 2]),
        (ragged.group_of(SIZES), [0, 0, 2, 2, 2]),
        (ragged.sums(VALUES, SIZES), [3, 0, 12]),
        (ragged.sums_before(VALUES, SIZES), [0, 1, 0, 3, 7]),
        (ragged.sums_before(VALUES, np.array([0, 5, 0, 0])), [0, 1, 3, 6, 10]),
        (ragged.sums_before(VALUES[:0], np.array([0, 0])), []),
        (ragged.sums(VALUES[:0], np.array([0, 0])), [0, 0]),
        (ragged.within_groups(SIZES[:0]), []),
    ],
)
def test_by_hand(result, expected):
    assert result.tolist() == expected
