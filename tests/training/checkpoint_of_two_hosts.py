"""Run by test_checkpoints.py, a process a host: python FILE FOLDER PORT RANK.

Two hosts of two devices each save a state that is split over all four, each hashing what it wrote;
find a flipped byte together, whoever wrote it; read the state back together, on this mesh and on
others, once where they hold replicas; and raise together what only one of them meets.
"""

import dataclasses
import os
import sys
from pathlib import Path
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import tiny_run
from jax.experimental.multihost_utils import sync_global_devices

from glm_jax.checkpoints import checksums
from glm_jax.checkpoints.reading import has_far_replicas
from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.distributed import require_same
from glm_jax.training.state import create_state


def main():
    folder, port, rank = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    config = tiny_run.tiny_config()
    train = dataclasses.replace(config.train, keep_checkpoints=3)
    config = dataclasses.replace(config, train=train)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4))
    state = create_state(config, mesh)
    checkpoints = Checkpoints(folder, config, mesh)
    for stream in (b"12", b"13", b"14"):
        checkpoints.save(state, stream)
        with mock.patch.object(checksums, "_sha256", spied(checksums._sha256, read := [])):
            checkpoints.wait()
        names = [path.relative_to(folder / str(int(state.step))).as_posix() for path in read]
        assert {checksums.writer_of(name, 2) for name in names} <= {rank}, names
        state = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), state)
    sync_global_devices("saved")
    # Each flips a byte of what the other wrote.
    own = folder / str(1 + rank) / "params" / f"ocdbt.process_{1 - rank}" / "d"
    largest = max(own.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    sync_global_devices("flipped")
    said = [checkpoints._damage(step, True) for step in (1, 2)]
    assert all("ocdbt.process_" in one and "its checksum differs" in one for one in said), said
    require_same({"what is said": str(said)})
    come_back(checkpoints, config, mesh)
    for sizes in [(1, 2, 1, 2), (2, 2, 1, 1), (4, 1, 1, 1)]:
        other = make_mesh(MeshConfig(*sizes))
        come_back(Checkpoints(folder, config, other), config, other)
        assert has_far_replicas(other) is (sizes[0] > 1)
    both_raise(checkpoints, rank)
    checkpoints.close()


def spied(real, seen):
    return lambda path: seen.append(path) or real(path)


def come_back(checkpoints, config, mesh):
    """The first state, on any mesh: its values depend on the seed alone."""
    restored, stream = checkpoints.restore()
    assert (int(restored.step), stream) == (0, b"12")
    first = create_state(config, mesh)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(first), strict=True):
        assert ours.sharding == theirs.sharding
        for a, b in zip(ours.addressable_shards, theirs.addressable_shards, strict=True):
            np.testing.assert_array_equal(a.data, b.data)


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
