"""TPU slices that this machine does not have: their devices, to compile for.

libtpu holds the whole compiler of a TPU, so a program for 256 chips can be compiled, and its memory
and cycles read, on a laptop:

    tpu_devices("v5e:2x2") -> [TPU at (0, 0, 0), at (0, 1, 0), at (1, 0, 0), at (1, 1, 0)]

The devices can be put into a mesh and compiled for; nothing can run on them.
"""

import importlib.util
import math
import os

import jax

from glm_jax.errors import UserError, how_to_install
from glm_jax.planning.chips import Tpu

# Both are single torus pods of 16 x 16; only a side that spans one closes on itself.
_FLAT_POD_SIDE = 16
# Cubes of 4 x 4 x 4 are wired inside; optical switches close whole multiples of them into a torus.
CUBE_SIDE = 4


def wraps_around(chip: Tpu, sides: tuple[int, ...]) -> tuple[bool, ...]:
    """Which of the three axes close on themselves, so that a ring along them has no long way back.

    v5e 16x16 -> (True, True, False)      v5p 4x4x4 -> (True, True, True)
    v5e 8x16  -> (False, True, False)     v5p 2x4x4 -> (False, False, False)
    """
    if chip.dimensions == 2:
        return (*(side == _FLAT_POD_SIDE for side in sides), False)
    return (all(side % CUBE_SIDE == 0 for side in sides),) * 3


def tpu_devices(name: str, chip: Tpu, sides: tuple[int, ...]) -> list[jax.Device]:
    """The devices of a slice in the order of their coordinates.

    Both that order and the links that wrap around matter: without either, the compiler takes an
    all-reduce where an all-gather would do.

    Args:
      name: as in `glm_jax.planning.topologies.TOPOLOGIES`.
      chip, sides: what it says.

    Raises:
      UserError: libtpu is not installed.
    """
    _prepare_libtpu()
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform="tpu",
        topology_name=name,
        # A host of v5e may have one chip; libtpu divides by what a host has.
        chips_per_host_bounds=(1, 1, 1) if math.prod(sides) == 1 else (2, 2, 1),
        num_slices=1,
        wrap=wraps_around(chip, sides),
        # The two cores of a chip work as one.
        chip_config_name="megacore" if chip.name in ("v4", "v5p") else "default",
    )
    return sorted(description.devices, key=lambda device: tuple(device.coords))


def _prepare_libtpu() -> None:
    """Keeps libtpu from looking for a TPU, its lock and its log; must come before it is loaded."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            "planning for a TPU needs its compiler, libtpu, which runs without a TPU; "
            f"install it with: {how_to_install('tpu')}"
        )
    for variable, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # Without these two it complains that it cannot tell on which machine it is.
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(variable, value)
