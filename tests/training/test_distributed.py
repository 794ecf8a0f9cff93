"""In one process; test_loop.py and test_checkpoints.py have two."""

import numpy as np
import pytest
from jax.experimental import multihost_utils

from glm_jax.training import distributed
from glm_jax.training.distributed import any_of, from_first, largest_of


def test_alone_each_has_its_own_answer():
    assert from_first(7) == 7
    assert largest_of(3) == 3
    assert any_of(True) is True
    assert any_of(False) is False


@pytest.mark.parametrize(("others", "largest"), [([0, 0], 0), ([0, 15], 15)])
def test_of_several_the_largest_and_the_first(monkeypatch, others, largest):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda value: np.array(others))
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: np.int32(2))
    assert largest_of(0) == largest
    assert any_of(False) is (largest > 0)
    assert from_first(0) == 2
