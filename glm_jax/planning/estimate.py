"""From a compiled step to milliseconds: what is read, what is worked out, and what is assumed.

    step = compute + kernels + collectives that nothing hides

* compute: libtpu's cycles over the chip's clock, or the microseconds of XLA's model of a GPU (its
  matrix products interpolated from measured ones), loop trips included. Read. Products that XLA's
  table lacks run at the share of the peak that large ones have in it. Assumed:
  `PRODUCT_SHARE_OF_PEAK`.
* kernels: attention in Pallas has no estimate. Its FLOPs (`KERNEL_PRODUCTS`, over the pairs of
  query and key that are seen) over half the chip's peak. Assumed: `KERNEL_SHARE_OF_PEAK`.
* collectives: bytes that pass a link, over the links the compiler's strategy uses (its `colors`;
  where it does not say: all links of the slice for a group of all devices, those of one axis for a
  smaller one) at their published bandwidth. A chip at the edge of a slice that does not wrap around
  has one link along an axis, not two. GPUs have one link each, into a switch.
* overlap: collectives that the compiler starts and waits for elsewhere run beside compute and
  kernels, up to their time; the others add up.

Left out: the input pipeline, the host, the network between slices, latency of small collectives,
contention, clocks below their maximum, and all that an estimate of cycles gets wrong. It ranks; it
has not been held against a TPU or a GPU.
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
# [8192, 2048] x [2048, 8192] in bfloat16 stands at 374 us for an H100: 0.74.
PRODUCT_SHARE_OF_PEAK = 0.74

# Products of [T, H] by [H, T] size that a kernel makes of a head, by the end of its name: forwards
# scores and output; backwards the scores again, the gradient of the weights, and one product for
# each gradient that it gives.
KERNEL_PRODUCTS = {"forward": 2, "query_gradient": 3, "key_gradient": 4}


ASSUMPTIONS = {
    "step_ms": "compute_ms + kernel_ms + exposed_ms",
    "compute_ms": "the compiler's estimates (libtpu: cycles over the clock), loop trips included",
    "kernel_ms": f"FLOPs of attention kernels at {KERNEL_SHARE_OF_PEAK:.0%} of the chip's peak",
    "exposed_ms": "waited_ms, and of overlapped_ms what is beyond compute_ms + kernel_ms",
    "waited_ms, overlapped_ms": "bytes through the links used, at their published bandwidth",
}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Milliseconds of one step on one chip.

    Attributes:
      compute_ms, kernel_ms: see above.
      waited_ms: collectives that nothing runs beside.
      overlapped_ms: collectives that run beside the rest.
      exposed_ms: what collectives add to the step.
      unknown_kernels: names of kernels that are left out of `kernel_ms`.
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
    """Estimates a step.

    Args:
      cost: of the compiled step.
      config, mesh: what it was compiled from.
      chip: what it runs on.
      sides: of the slice, in chips; of a TPU only.
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
    """FLOPs that one device does in attention kernels, and the names of those it does not know.

    A call does `products` * 2 * T * T * density * N * H for each of its rows, its share of heads
    and places. Of a kernel with another name only what it states itself counts.
    """
    model, length = config.model.resolved(), config.data.sequence_length
    rows = config.data.batch_size / row_groups(mesh) / config.train.accumulation_steps
    share = rows / (mesh.shape["tensor"] * mesh.shape["sequence"])
    width = model.num_heads * (model.head_dim or 0)
    pairs = length * length * attention_density(config.objective)
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
    """The time that the bytes of a collective take to pass its links.

    A ring of n devices passes (n - 1) / n of all bytes to gather or to scatter, twice that to
    reduce on all.

    Args:
      one: a collective, or several alike.
      chip, sides: of the slice.
      devices: in all.
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
    """Links of a chip that a collective sends over at once.

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
    """Turns of the loop over the places that have a target, as the objective's rates have it.

    It is the one loop of a step whose bound depends on the data, and only there where
    `train.cross_entropy` is "gradient_in_forward".
    """
    rows = config.data.batch_size / row_groups(mesh) / config.train.accumulation_steps
    places = rows * config.data.sequence_length * predicted_share(config.objective)
    return max(1, math.ceil(round(places / (config.train.loss_chunk or places), 6)))
