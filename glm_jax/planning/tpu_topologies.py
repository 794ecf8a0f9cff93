"""Devices of TPU slices that this machine does not have, to compile for.

libtpu contains the compiler for TPUs, so a laptop can compile a program for 256 chips and read its
memory and cycles:

    tpu_devices("v5e:2x2") -> [TPU at (0, 0, 0), at (0, 1, 0), at (1, 0, 0), at (1, 1, 0)]

The devices can be put into a mesh and compiled for; nothing can run on them.
"""

import importlib.util
import math
import os

import jax

from glm_jax.errors import UserError, how_to_install
from glm_jax.planning.chips import Tpu

# v5e and v6e pods are single tori of 16 x 16; only a side of 16 wraps around.
_FLAT_POD_SIDE = 16
# v4 and v5p are built of cubes of 4 x 4 x 4, which optical switches join into a torus.
CUBE_SIDE = 4


def wraps_around(chip: Tpu, sides: tuple[int, ...]) -> tuple[bool, ...]:
    """Which of the three axes wrap around, i.e. link the last chip to the first.

    v5e 16x16 -> (True, True, False)      v5p 4x4x4 -> (True, True, True)
    v5e 8x16  -> (False, True, False)     v5p 2x4x4 -> (False, False, False)
    """
    if chip.dimensions == 2:
        return (*(side == _FLAT_POD_SIDE for side in sides), False)
    return (all(side % CUBE_SIDE == 0 for side in sides),) * 3


def tpu_devices(name: str, chip: Tpu, sides: tuple[int, ...]) -> list[jax.Device]:
    """The devices of a slice in the order of their coordinates.

    Both this order and the wrap-around links matter: without either, the compiler uses an
    all-reduce where an all-gather would do.

    Args:
      name: as in `glm_jax.planning.topologies.TOPOLOGIES`.
      chip, sides: what `name` stands for.

    Raises:
      UserError: libtpu is not installed.
    """
    _prepare_libtpu()
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform="tpu",
        topology_name=name,
        # A v5e host may have a single chip; libtpu divides by the chips per host.
        chips_per_host_bounds=(1, 1, 1) if math.prod(sides) == 1 else (2, 2, 1),
        num_slices=1,
        wrap=wraps_around(chip, sides),
        # The two cores of a chip work as one.
        chip_config_name="megacore" if chip.name in ("v4", "v5p") else "default",
    )
    return sorted(description.devices, key=lambda device: tuple(device.coords))


def _prepare_libtpu() -> None:
    """Keeps libtpu from looking for a TPU, a lock or a log; must run before libtpu is loaded."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            "planning for a TPU needs its compiler, libtpu, which runs without a TPU; "
            f"install it with: {how_to_install('tpu')}"
        )
    for variable, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # Without these two, libtpu logs that it cannot tell which machine it is on.
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(variable, value)
