"""TPU slices that this machine does not have: their devices to compile for, what a chip can do.

libtpu holds the whole compiler of a TPU, so a program for 256 chips can be compiled, and its memory
and cycles read, on a laptop:

    topology_devices("v5e:2x2") -> [TPU at (0, 0, 0), at (0, 1, 0), at (1, 0, 0), at (1, 1, 0)]

The devices can be put into a mesh and compiled for; nothing can run on them.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import re

import jax

from glm_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU chip, from the page `docs.cloud.google.com/tpu/docs/NAME` where not said.

    Attributes:
      name: as in a topology's name.
      device_kinds: what jax calls it.
      hbm_gib: memory that a program may use, as libtpu's compiler states it when a program is too
        large ("exceeds available HBM"); the chip has a little more, v5e 16 GB.
      peak_flops: bfloat16 operations a second, a multiplication and an addition being two.
      hbm_bandwidth: bytes a second.
      clock_hz: of the cycles that the compiler estimates. It is what makes the peak out of the
        chip's matrix units: v5e 4 units x 128 x 128 x 2 x 1.5 GHz = 197e12.
      link_bandwidth: bytes a second over one link in one direction: the chip's bidirectional
        bandwidth, 400 GB/s for v5e, over twice its links. v4: 2400 Gb/s in one direction, of its
        article (arXiv:2304.01433, table 4), over 6.
      dimensions: of the torus; a chip has two links along each.
      shapes: slices that are sold; where there are three dimensions, larger multiples of 4 too.
    """

    name: str
    device_kinds: tuple[str, ...]
    hbm_gib: float
    peak_flops: float
    hbm_bandwidth: float
    clock_hz: float
    link_bandwidth: float
    dimensions: int
    shapes: tuple[str, ...]

    @property
    def links(self) -> int:
        """Links of one chip, on an axis that wraps around or inside of one that does not."""
        return 2 * self.dimensions


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", ("TPU v4",), 30.75, 275e12, 1200e9, 1.05e9, 50e9, 3, _CUBES),
        Chip("v5e", ("TPU v5 lite", "TPU v5e"), 15.75, 197e12, 819e9, 1.5e9, 50e9, 2, _FLAT),
        Chip("v5p", ("TPU v5", "TPU v5p"), 95.73, 459e12, 2765e9, 1.75e9, 100e9, 3, _CUBES),
        Chip("v6e", ("TPU v6 lite", "TPU v6e"), 31.24, 918e12, 1638e9, 1.75e9, 100e9, 2, _FLAT),
    )
}
TOPOLOGIES = tuple(f"{chip.name}:{shape}" for chip in CHIPS.values() for shape in chip.shapes)

# Both are single torus pods of 16 x 16; only a side that spans one closes on itself.
_FLAT_POD_SIDE = 16
# Cubes of 4 x 4 x 4 are wired inside; optical switches close whole multiples of them into a torus.
_CUBE_SIDE = 4


def chip_of(device: jax.Device) -> Chip | None:
    """The facts of a device's chip, None where it is no TPU, or one not in `CHIPS`."""
    return next((c for c in CHIPS.values() if device.device_kind in c.device_kinds), None)


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """`"v5e:4x4"` -> (the chip, (4, 4)).

    Raises:
      UserError: no such chip or shape; lists the known ones and the nearest.
    """
    chip_name, _, shape = name.partition(":")
    chip = CHIPS.get(chip_name)
    if chip is not None and re.fullmatch(r"\d+(x\d+)+", shape):
        sides = tuple(map(int, shape.split("x")))
        cubes = len(sides) == chip.dimensions == 3 and not any(side % _CUBE_SIDE for side in sides)
        if shape in chip.shapes or (cubes and min(sides) and list(sides) == sorted(sides)):
            return chip, sides
    known = ", ".join(f"{c.name}: {' '.join(c.shapes)}" for c in CHIPS.values())
    raise UserError(
        f"there is no topology {name!r}{did_you_mean(name, TOPOLOGIES)}; it is CHIP:SHAPE, "
        f"for example v5e:4x4; known: {known}"
    )


def wraps_around(chip: Chip, sides: tuple[int, ...]) -> tuple[bool, ...]:
    """Which of the three axes close on themselves, so that a ring along them has no long way back.

    v5e 16x16 -> (True, True, False)      v5p 4x4x4 -> (True, True, True)
    v5e 8x16  -> (False, True, False)     v5p 2x4x4 -> (False, False, False)
    """
    if chip.dimensions == 2:
        return (*(side == _FLAT_POD_SIDE for side in sides), False)
    return (all(side % _CUBE_SIDE == 0 for side in sides),) * 3


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a slice, to compile for, in the order of their coordinates.

    Both that order and the links that wrap around matter: without either, the compiler takes an
    all-reduce where an all-gather would do.

    Args:
      name: as in `TOPOLOGIES`.

    Raises:
      UserError: an unknown name, or libtpu is not installed.
    """
    return list(_devices(name))


@functools.cache
def _devices(name: str) -> tuple[jax.Device, ...]:
    chip, sides = parse_topology(name)
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
    return tuple(sorted(description.devices, key=lambda device: tuple(device.coords)))


def _prepare_libtpu() -> None:
    """Keeps libtpu from looking for a TPU, its lock and its log; must come before it is loaded."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            "planning for a TPU needs its compiler, libtpu, which runs without a TPU; "
            "install it with: pip install 'glm_jax[tpu]'"
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
