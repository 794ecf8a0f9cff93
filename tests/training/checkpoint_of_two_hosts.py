"""Run by test_checkpoints.py, a process a host: python FILE FOLDER PORT RANK.

Two hosts of two devices each save a state that is split over all four, read it back together, and
find a flipped byte together, and raise together what only one of them meets.
"""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import tiny_run
from jax.experimental.multihost_utils import sync_global_devices

from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.state import create_state


def main():
    folder, port, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    config = tiny_run.tiny_config()
    mesh = make_mesh(MeshConfig(data=1, fsdp=4))
    state = create_state(config, mesh)
    checkpoints = Checkpoints(folder, config, mesh)
    for stream in (b"12", b"13"):
        checkpoints.save(state, stream)
        checkpoints.wait()
        state = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), state)
    sync_global_devices("saved")
    if rank == 0:
        largest = max((folder / "1").rglob("d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    sync_global_devices("flipped")
    restored, stream = checkpoints.restore()
    assert (int(restored.step), stream) == (0, b"12")
    first = create_state(config, mesh)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(first), strict=True):
        assert ours.sharding == theirs.sharding
        for a, b in zip(ours.addressable_shards, theirs.addressable_shards, strict=True):
            np.testing.assert_array_equal(a.data, b.data)
    both_raise(checkpoints, rank)
    checkpoints.close()


def both_raise(checkpoints, rank):
    """What one host cannot read for a reason of its own is no damage, and neither goes on."""

    def restore(step):
        if rank == 1:
            raise MemoryError("no room on this host")
        return "state", b""

    checkpoints._restore = restore
    try:
        checkpoints.restore()
    except (MemoryError, RuntimeError) as error:
        said = str(error)
    assert said == (
        "no room on this host"
        if rank == 1
        else "another process could not read checkpoint 0, and says why"
    )
    assert checkpoints.steps() == [0]


if __name__ == "__main__":
    main()
