import types

import jax
import numpy as np
import pytest

from glm_jax.planning.saving import checkpoint_facts, checkpoint_line, checkpoint_times


def mesh_of(processes):
    devices = np.array([[types.SimpleNamespace(process_index=i) for i in row] for row in processes])
    return types.SimpleNamespace(devices=devices[:, :, None, None])


def state_of(values):
    params = {"w": jax.ShapeDtypeStruct((values,), np.float32)}
    return types.SimpleNamespace(trainable=params, frozen={}, opt_state=(params, params))


def test_times_are_bytes_per_host_over_the_bandwidth():
    # 10^9 parameters, two moments: 12 GB by four hosts of one replica.
    facts = checkpoint_facts(mesh_of([[0, 1, 2, 3]]), state_of(10**9))
    assert facts == {"checkpoint_gb": 12.0, "checkpoint_writers": 4, "checkpoint_readers": 4}
    # Written and read back: 2 x 3 GB. Verified and read: 3 + 3 GB.
    assert checkpoint_times(facts, 0.5) == {
        "disk_gb_per_second": 0.5,
        "save_seconds": 12.0,
        "restore_seconds": 12.0,
    }


def test_replicas_share_out_the_writing_but_one_reads_for_all():
    facts = checkpoint_facts(mesh_of([[0, 1], [2, 3]]), state_of(10**9))
    assert (facts["checkpoint_writers"], facts["checkpoint_readers"]) == (4, 2)
    times = checkpoint_times(facts, 1.0)
    assert times["save_seconds"] == pytest.approx(2 * 12 / 4)
    assert times["restore_seconds"] == pytest.approx(12 / 4 + 12 / 2)


def test_the_line_says_on_what_it_rests():
    facts = checkpoint_facts(mesh_of([[0]]), state_of(10**8))
    assert checkpoint_line(facts | checkpoint_times(facts, 0.2)) == (
        "checkpoint  1.2 GB by 1 host; at 0.2 GB/s each, a save takes 12 s beside training, "
        "a restore 12 s"
    )
