"""Published figures of accelerator chips: TPUs and NVIDIA GPUs.

chip_of(jax.devices()[0]).peak_flops      197e12 on a v5e
"""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of chip, and the links between such chips.

    Attributes:
      name: as in a topology's name.
      device_kinds: its names in jax (`Device.device_kind`).
      hbm_gib: memory that a program may use, in GiB.
      peak_flops: bfloat16 operations per second; a multiply-add counts as two.
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second over one link in one direction.
      shapes: available slices, as in a topology's name.
      clock_hz: maximum clock frequency.
    """

    name: str
    device_kinds: tuple[str, ...]
    hbm_gib: float
    peak_flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    shapes: tuple[str, ...]
    clock_hz: float

    @property
    def is_timed(self) -> bool:
        """Whether its compiler estimates the time of operations."""
        return True


@dataclasses.dataclass(frozen=True)
class Tpu(Chip):
    """A TPU; figures are from `docs.cloud.google.com/tpu/docs/NAME` unless stated otherwise.

    `hbm_gib` is the limit that libtpu's compiler states when a program is too large ("exceeds
    available HBM"); the chip has a little more (v5e: 16 GB). `link_bandwidth` is the chip's
    bidirectional bandwidth, 400 GB/s for v5e, divided by twice its links; for v4 it is 2400 Gb/s in
    one direction (arXiv:2304.01433, table 4), divided by 6. Tori of three dimensions are also sold
    in larger multiples of 4 than `shapes` lists. `clock_hz` is the clock of the cycles that the
    compiler estimates; it follows from the peak and the matrix units: for v5e 4 units x 128 x 128 x
    2 x 1.5 GHz = 197e12.

    Attributes:
      dimensions: number of dimensions of the torus; a chip has two links along each.
    """

    dimensions: int

    @property
    def links(self) -> int:
        """Links of a chip that is not at the edge of an axis, or on axes that wrap around."""
        return 2 * self.dimensions


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """An NVIDIA GPU on a board of eight (SXM), by its data sheet unless stated otherwise.

    `peak_flops` is without sparsity. `link_bandwidth` is half of NVLink's figure, which counts both
    directions: 900 GB/s for Hopper. `hbm_gib` is the memory that CUDA reports, of which jax takes a
    share (`facts.memory_limit`).

    Attributes:
      capability: CUDA's compute capability.
      multiprocessors: number of multiprocessors.
      fpus: float32 units per multiprocessor.
      l2_bytes: size of the L2 cache.
      shared_bytes: shared memory per multiprocessor; one block may use 1 KiB less.
    """

    capability: tuple[int, int]
    multiprocessors: int
    fpus: int
    l2_bytes: int
    shared_bytes: int

    @property
    def is_timed(self) -> bool:
        """Whether XLA has a table of measured matrix products for it: from Hopper on."""
        return self.capability >= (9, 0)


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
_BOARD = ("1", "2", "4", "8")
# Clock, capability, multiprocessors, units, caches: from NVIDIA's architecture white papers.
_AMPERE = (1.41e9, (8, 0), 108, 64, 40 << 20, 164 << 10)
_HOPPER = (1.98e9, (9, 0), 132, 128, 50 << 20, 228 << 10)

CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Tpu("v4", ("TPU v4",), 30.75, 275e12, 1200e9, 50e9, _CUBES, 1.05e9, 3),
        Tpu("v5e", ("TPU v5 lite", "TPU v5e"), 15.75, 197e12, 819e9, 50e9, _FLAT, 1.5e9, 2),
        Tpu("v5p", ("TPU v5", "TPU v5p"), 95.73, 459e12, 2765e9, 100e9, _CUBES, 1.75e9, 3),
        Tpu("v6e", ("TPU v6 lite", "TPU v6e"), 31.24, 918e12, 1638e9, 100e9, _FLAT, 1.75e9, 2),
        Gpu(
            "a100",
            ("NVIDIA A100-SXM4-80GB",),
            *(79.25, 312e12, 2.039e12, 300e9, _BOARD, *_AMPERE),
        ),
        Gpu(
            "h100",
            ("NVIDIA H100 80GB HBM3",),
            *(79.11, 989e12, 3.35e12, 450e9, _BOARD, *_HOPPER),
        ),
        Gpu("h200", ("NVIDIA H200",), 141.0, 989e12, 4.8e12, 450e9, _BOARD, *_HOPPER),
    )
}


def chip_of(device: jax.Device) -> Chip | None:
    """The `Chip` of a device; None if it is not in `CHIPS`."""
    return next((c for c in CHIPS.values() if device.device_kind in c.device_kinds), None)
