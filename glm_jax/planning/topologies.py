"""Devices of TPU slices and GPU boards by name: `v5e:16x16` (256 TPUs), `h100:8` (8 GPUs)."""

import functools
import re

import jax

from glm_jax.errors import UserError, did_you_mean
from glm_jax.planning.chips import CHIPS, Chip, Gpu, Tpu
from glm_jax.planning.tpu_topologies import CUBE_SIDE, tpu_devices

TOPOLOGIES = tuple(f"{chip.name}:{shape}" for chip in CHIPS.values() for shape in chip.shapes)


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """`"v5e:4x4"` -> (the chip, (4, 4)); `"h100:8"` -> (the chip, (8,)).

    Raises:
      UserError: no such chip or shape; lists the known ones and suggests the nearest.
    """
    chip_name, _, shape = name.partition(":")
    chip = CHIPS.get(chip_name)
    if chip is not None and re.fullmatch(r"\d+(x\d+)*", shape):
        sides = tuple(map(int, shape.split("x")))
        if shape in chip.shapes or (isinstance(chip, Tpu) and _made_of_cubes(chip, sides)):
            return chip, sides
    known = ", ".join(f"{c.name}: {' '.join(c.shapes)}" for c in CHIPS.values())
    raise UserError(
        f"there is no topology {name!r}{did_you_mean(name, TOPOLOGIES)}; it is CHIP:SHAPE, "
        f"for example v5e:4x4 or h100:8; known: {known}"
    )


def _made_of_cubes(chip: Tpu, sides: tuple[int, ...]) -> bool:
    whole = len(sides) == chip.dimensions == 3 and not any(side % CUBE_SIDE for side in sides)
    return whole and min(sides) > 0 and list(sides) == sorted(sides)


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a slice or board, to compile for.

    Args:
      name: as in `TOPOLOGIES`.

    Raises:
      UserError: the name is unknown, or the compiler for its chips is not installed.
    """
    return list(_devices(name))


@functools.cache
def _devices(name: str) -> tuple[jax.Device, ...]:
    chip, sides = parse_topology(name)
    if isinstance(chip, Gpu):
        from glm_jax.planning.gpu_topologies import gpu_devices

        return tuple(gpu_devices(chip, sides[0]))
    assert isinstance(chip, Tpu)
    return tuple(tpu_devices(name, chip, sides))
