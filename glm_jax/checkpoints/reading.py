"""Reading a checkpoint once where replicas hold the same: the first reads, the others are sent it.

data 2, a host each      every host reads      62 MB + 62 MB
                         the first replica     62 MB + 0, and a broadcast between devices
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from glm_jax.sharding.mesh import AXES


def has_far_replicas(mesh: Mesh) -> bool:
    """Whether processes of the mesh have no device of the first replica of "data"."""
    first = {device.process_index for device in mesh.devices[0].flat}
    return first != {device.process_index for device in mesh.devices.flat}


@contextmanager
def by_first_replica() -> Iterator[None]:
    """Context in which orbax reads only on the processes of the first replica of "data".

    Arrays must be replicated over that axis, as parameters and moments are. A process that cannot
    read leaves the others in a collective, so what is read should have been verified before.
    """
    context = ocp.Context()
    context.array.loading.use_load_and_broadcast = True
    context.array.loading.load_and_broadcast_options.replica_axis_index = AXES.index("data")
    with context:
        yield
