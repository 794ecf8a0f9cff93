"""On two processes: tests/training/test_checkpoints.py."""

import types

import numpy as np
import pytest

from glm_jax.checkpoints.reading import by_first_replica, has_far_replicas


@pytest.mark.parametrize(
    ("processes", "far"),
    [
        ([[0, 0], [1, 1]], True),  # a replica on each process
        ([[0, 1], [0, 1]], False),  # each process has a part of both
        ([[0, 1]], False),  # one replica on two processes
        ([[0], [0], [1], [1]], True),
    ],
)
def test_whether_a_process_has_nothing_of_the_first_replica(processes, far):
    devices = np.array([[types.SimpleNamespace(process_index=i) for i in row] for row in processes])
    assert has_far_replicas(types.SimpleNamespace(devices=devices[:, :, None, None])) is far


def test_a_lone_process_reads_as_ever(tmp_path):
    from orbax.checkpoint import v1 as ocp  # after glm_jax, which says what it uses for buckets

    values = {"x": np.arange(4.0), "step": 3}
    ocp.save_checkpointables(tmp_path / "c", {"params": values})
    with by_first_replica():
        found = ocp.load_checkpointables(tmp_path / "c", {"params": None})["params"]
    np.testing.assert_array_equal(found["x"], values["x"])
    assert found["step"] == 3
