"""Estimates the time of a compiled step, in milliseconds.

    step = compute + kernels + exposed collectives

* compute: libtpu's cycles divided by the chip's clock, or the microseconds of XLA's model of a GPU
  (which interpolates measured matrix products), loop trips included. Products that XLA's table
  lacks are assumed to run at the share of the peak that large ones reach in it
  (`PRODUCT_SHARE_OF_PEAK`).
* kernels: the compiler has no estimate for attention in Pallas. Its FLOPs (`KERNEL_PRODUCTS`, over
  the visible pairs of query and key) are assumed to run at half the peak (`KERNEL_SHARE_OF_PEAK`).
* collectives: the bytes that each chip sends, divided by the published bandwidth of the links that
  the compiler uses (its `colors`). Where it does not say, these are all links of the slice for a
  group of all devices, and those of one axis for a smaller group. A chip at the edge of a slice
  that does not wrap around has one link along that axis, not two. A GPU has one link, to a switch.
* overlap: collectives that the compiler starts in one place and waits for in another run in
  parallel with compute and kernels. Only their excess over these is exposed; the other collectives
  are exposed in full.

Not included: the input pipeline, the host, the network between slices, latency of small
collectives, contention, clocks below their maximum, and errors of the compiler's own estimates. The
estimate is for ranking choices; it has not been compared with a TPU or a GPU.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.models.flops import attention_density, predicted_share
from glm_jax.planning.chips import Chip, Tpu
from glm_jax.planning.hlo import Collective, HloCost, Kernel
from glm_jax.planning.tpu_topologies import wraps_around
from glm_jax.sharding.mesh import row_groups

KERNEL_SHARE_OF_PEAK = 0.5
# XLA's table has 374 us for [8192, 2048] x [2048, 8192] in bfloat16 on an H100: 0.74.
PRODUCT_SHARE_OF_PEAK = 0.74

# Matrix products of size [T, H] x [H, T] per head in a kernel, by the end of its name. Forward:
# scores and output. Backward: the scores again, the gradient of the weights, and one product for
# each gradient returned.
KERNEL_PRODUCTS = {"forward": 2, "query_gradient": 3, "key_gradient": 4}


ASSUMPTIONS = {
    "step_ms": "compute_ms + kernel_ms + exposed_ms",
    "compute_ms": "the compiler's estimates (libtpu: cycles over the clock), loop trips included",
    "kernel_ms": f"FLOPs of attention kernels at {KERNEL_SHARE_OF_PEAK:.0%} of the chip's peak",
    "exposed_ms": "waited_ms + the excess of overlapped_ms over compute_ms + kernel_ms",
    "waited_ms, overlapped_ms": "bytes through the links used, at their published bandwidth",
}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Milliseconds of one step on one chip.

    Attributes:
      compute_ms, kernel_ms: see the module's docstring.
      waited_ms: collectives that overlap with nothing.
      overlapped_ms: collectives that overlap with compute and kernels.
      exposed_ms: time that collectives add to the step.
      unknown_kernels: names of kernels that are not included in `kernel_ms`.
    """

    compute_ms: float
    kernel_ms: float
    waited_ms: float
    overlapped_ms: float
    unknown_kernels: tuple[str, ...] = ()

    @property
    def exposed_ms(self) -> float:
        return self.waited_ms + max(0.0, self.overlapped_ms - self.compute_ms - self.kernel_ms)

    @property
    def step_ms(self) -> float:
        return self.compute_ms + self.kernel_ms + self.exposed_ms


def step_time(
    cost: HloCost, config: Config, mesh: Mesh, chip: Chip, sides: Sequence[int]
) -> StepTime:
    """Estimates the time of a step on one chip.

    Args:
      cost: of the compiled step.
      config, mesh: of the compiled step.
      chip: that the step runs on.
      sides: of the slice, in chips; used for TPUs only.
    """
    flops, unknown = kernel_flops(cost.kernels, config, mesh)

    def milliseconds(which: Iterable[Collective]) -> float:
        return 1e3 * sum(collective_seconds(one, chip, sides, mesh.size) for one in which)

    return StepTime(
        compute_ms=1e3
        * (cost.seconds + cost.product_flops / (chip.peak_flops * PRODUCT_SHARE_OF_PEAK)),
        kernel_ms=1e3 * flops / (chip.peak_flops * KERNEL_SHARE_OF_PEAK),
        waited_ms=milliseconds(one for one in cost.collectives if not one.overlapped),
        overlapped_ms=milliseconds(one for one in cost.collectives if one.overlapped),
        unknown_kernels=unknown,
    )


def kernel_flops(
    kernels: Iterable[Kernel], config: Config, mesh: Mesh
) -> tuple[float, tuple[str, ...]]:
    """FLOPs of attention kernels on one device, and the names of kernels with unknown FLOPs.

    A call does `products` * 2 * T * T * density * N * H FLOPs per row, of which a device has its
    share of heads and slots. A kernel that is not in `KERNEL_PRODUCTS` counts with the FLOPs that
    it states itself.
    """
    model, length = config.resolved_model, config.data.sequence_length
    rows = config.data.batch_size / row_groups(mesh) / config.train.accumulation_steps
    share = rows / (mesh.shape["tensor"] * mesh.shape["sequence"])
    width = model.num_heads * model.head_dim
    pairs = length * length * attention_density(config.cost_objective)
    total, unknown = 0.0, []
    for kernel in kernels:
        ends = [n for end, n in KERNEL_PRODUCTS.items() if kernel.name.endswith(end)]
        if ends:
            total += kernel.count * share * ends[0] * 2 * pairs * width
        else:
            total += kernel.flops
            unknown += [] if kernel.flops else [kernel.name]
    return total, tuple(unknown)


def collective_seconds(one: Collective, chip: Chip, sides: Sequence[int], devices: int) -> float:
    """The seconds that the bytes of a collective need on its links.

    In a ring of n devices each sends (n - 1) / n of all bytes for an all-gather or reduce-scatter,
    and twice that for an all-reduce.

    Args:
      one: a collective, or several of one kind.
      chip, sides: of the slice.
      devices: total number of devices.
    """
    n = one.group_size
    gathered = one.num_bytes * n if one.kind == "reduce-scatter" else one.num_bytes
    passed = gathered * (n - 1) / n
    if one.kind == "all-reduce":
        passed *= 2
    elif one.kind == "collective-permute":
        passed = one.num_bytes
    return passed / (links_used(one, chip, sides, devices) * chip.link_bandwidth)


def links_used(one: Collective, chip: Chip, sides: Sequence[int], devices: int) -> int:
    """The number of links of a chip that a collective uses at once.

    v5e 4x4, all 16, no colors -> 2      v5e 16x16, all 256, 4 colors -> 4      one axis -> 1, 2
    h100: 1
    """
    if not isinstance(chip, Tpu):
        return 1
    along = [
        2 if wraps else 1
        for side, wraps in zip(sides, wraps_around(chip, tuple(sides)), strict=False)
        if side > 1
    ]
    available = sum(along) or 1
    if one.colors is not None:
        return min(one.colors, available)
    return available if one.group_size == devices else max(along, default=1)


def expected_turns(config: Config, mesh: Mesh) -> int:
    """Expected trips of the loop over slots with a target, by the rates of the objectives.

    It is the only loop of a step whose bound depends on the data, and exists only if
    `train.cross_entropy` is "gradient_in_forward".
    """
    rows = config.data.batch_size / row_groups(mesh) / config.train.accumulation_steps
    slots = rows * config.data.sequence_length * predicted_share(config.cost_objective)
    return max(1, math.ceil(round(slots / (config.train.loss_chunk or slots), 6)))
