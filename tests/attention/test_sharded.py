import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from glm_jax.attention.call import Call
from glm_jax.attention.sharded import Split, over_mesh, split_for
from glm_jax.sharding.mesh import AXES
from tests.meshes import abstract_mesh
from tests.quick_flags import with_quick_flags

AUTO, MANUAL = AxisType.Auto, AxisType.Manual


def split(sizes, q_shape, num_kv_heads, types=(AUTO,) * 4):
    with jax.sharding.use_abstract_mesh(abstract_mesh(*sizes, types=types)):
        return split_for(q_shape, num_kv_heads)


def test_without_a_mesh_or_with_one_device_nothing_is_split():
    assert split_for((4, 64, 8, 16), 2) == Split()
    assert split((1, 1, 1, 1), (4, 64, 8, 16), 2) == Split()


def test_every_axis_splits_its_dimension():
    found = split((2, 2, 2, 4), (8, 64, 8, 16), 2)
    assert found.axes == set(AXES)
    assert (found.batch, found.sequence, found.tensor) == (("data", "fsdp"), "sequence", "tensor")
    assert found.kv_copies == 1
    assert found.local_shape((8, 64, 8, 16)) == (2, 16, 4, 16)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tensor", "copies"),
    [(8, 2, 4, 2), (8, 1, 4, 4), (24, 6, 4, 2), (12, 4, 4, 1), (32, 2, 16, 8)],
)
def test_key_heads_are_repeated_to_the_fewest_that_split(heads, kv_heads, tensor, copies):
    found = split((1, 1, tensor, 1), (1, 8, heads, 16), kv_heads)
    assert found.kv_copies == copies
    assert kv_heads * copies % tensor == 0
    assert heads % (kv_heads * copies) == 0


def test_an_axis_that_does_not_divide_is_left_out():
    found = split((4, 2, 3, 5), (2, 64, 8, 16), 2)
    assert (found.batch, found.sequence, found.tensor) == (("fsdp",), None, None)
    assert found.local_shape((2, 64, 8, 16)) == (1, 64, 8, 16)
    assert found.kv_copies == 1


def test_what_is_split_by_hand_further_out_is_left_alone():
    found = split((2, 2, 2, 1), (4, 64, 8, 16), 2, (MANUAL, MANUAL, AUTO, AUTO))
    assert found.axes == {"tensor", "sequence"}
    assert (found.batch, found.tensor) == ((), "tensor")
    assert split((2, 2, 2, 1), (4, 64, 8, 16), 2, (MANUAL,) * 4).axes == frozenset()


def test_on_one_device_the_function_is_called_as_it_is():
    q, bounds = jnp.ones((1, 2, 3, 4)), jnp.zeros((1, 2), jnp.int32)
    given = Call(q, q, q, bounds, bounds, 1.0)

    def run(call):
        assert call is given
        return q, q[..., 0]

    np.testing.assert_array_equal(over_mesh(run, given)[0], q)


@pytest.mark.processes
def test_eight_devices_attend_as_one_does():
    script = Path(__file__).with_name("attention_on_eight.py")
    command = [sys.executable, script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=with_quick_flags()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["2x2x2x1", "1x2x2x2", "1x1x4x2", "8x1x1x1"]
