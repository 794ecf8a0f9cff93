"""How long the checkpoints of a run take: bytes per host over the bandwidth of its disk.

    GLM-10B, AdamW, 32 hosts: 119 GB, 3.7 GB per host; at 1 GB/s written in 3.7 s, and read back
    for its checksums in another 3.7: save 7.4 s

Each host writes the shards that it holds; replicas share them out. On restoring, each verifies its
share of the bytes and then reads what it needs. Where the axis "data" holds replicas on several
hosts, those of the first replica read and the others get it by a broadcast
(`glm_jax.checkpoints.reading`). What this leaves out: compression (parameters hardly shrink), the
index, latency, the broadcast, and a disk that all hosts share. A save runs beside training; what it
keeps training from its next step is measured in a run (`time/save_stall`).
"""

import jax
from jax.sharding import AbstractMesh, Mesh

from glm_jax.planning.apart import Report
from glm_jax.training.train_state import TrainState


def checkpoint_facts(mesh: Mesh | AbstractMesh, state: TrainState) -> Report:
    """Bytes of a checkpoint, and hosts that write and read it; one host where none are known.

    Where some parameters are frozen, it holds the others alone, as with `train.init_from`.
    """
    hosts = readers = 1
    if not isinstance(mesh, AbstractMesh):
        hosts = len({device.process_index for device in mesh.devices.flat})
        readers = len({device.process_index for device in mesh.devices[0].flat})
    saved = jax.tree.leaves((state.trainable, state.opt_state))
    return {
        "checkpoint_gb": sum(leaf.size * leaf.dtype.itemsize for leaf in saved) / 1e9,
        "checkpoint_writers": hosts,
        "checkpoint_readers": readers,
    }


def checkpoint_times(report: Report, gb_per_second: float) -> Report:
    """Seconds of a save and of a restore.

    Args:
      report: with what `checkpoint_facts` gives.
      gb_per_second: of one host's disk or bucket, reading and writing alike, in 10^9 bytes.
    """
    total = report["checkpoint_gb"]
    share = total / report["checkpoint_writers"]
    return {
        "disk_gb_per_second": gb_per_second,
        "save_seconds": 2 * share / gb_per_second,
        "restore_seconds": (share + total / report["checkpoint_readers"]) / gb_per_second,
    }


def checkpoint_line(report: Report) -> str:
    """The line of `plan` about checkpoints."""
    hosts = report["checkpoint_writers"]
    return (
        f"checkpoint  {report['checkpoint_gb']:.1f} GB by {hosts} host{'s' * (hosts > 1)}; at "
        f"{report['disk_gb_per_second']:g} GB/s each, a save takes {report['save_seconds']:.0f} s "
        f"beside training, a restore {report['restore_seconds']:.0f} s"
    )
