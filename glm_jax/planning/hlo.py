"""The cost of a compiled program, read from its text: seconds, kernels, collectives, loops.

`compiled.as_text()` is the optimised HLO. In it libtpu gives the estimated cycles of each fusion.
XLA's GPU compiler gives microseconds, if asked to:

    %fusion.3 = bf16[512,256]{1,0} fusion(%x), calls=%f, .. {"estimated_cycles":"5212"}
    %while.1 = (s32[], ..) while(%t), condition=%less_than_28, body=%layer

The body of a loop counts once per trip (`compiled.cost_analysis()` counts it once, which is useless
for a model whose layers are scanned). Kernels and collectives are listed separately, for
`estimate.py`.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

from glm_jax.planning.hlo_text import (
    Computation,
    Instruction,
    computations_of,
    group_size,
    sizes_in_bytes,
    trip_count,
    widening_product_flops,
)

# Some estimates are broken, such as 1e17 cycles; no fusion takes an hour, in seconds.
_ABSURD = 3600.0
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Custom call targets of Pallas kernels.
_KERNEL_TARGETS = ("tpu_custom_call", "__gpu$xla.gpu.triton", "mosaic_gpu", "mosaic_gpu_v2")
# XLA's name for an all-reduce of which each device keeps only its part: a reduce-scatter.
_FUSED_SCATTER = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step, as seen by one device.

    Attributes:
      kind: "all-gather", "all-reduce", "reduce-scatter", "all-to-all" or "collective-permute".
      group_size: devices in one group; 2 for a permute.
      colors: ring directions that the compiler spreads the data over; None: it does not say.
      overlapped: whether they run in parallel with other work.
      count: number of collectives.
      num_bytes: bytes of all their results.
    """

    kind: str
    group_size: int
    colors: int | None
    overlapped: bool
    count: int = 0
    num_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Calls of one Pallas kernel.

    Attributes:
      name: of the kernel.
      count: number of calls.
      flops: of all calls, if the kernel states them (`pl.CostEstimate`), else 0.
    """

    name: str
    count: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop and its number of trips; None: known only when the program runs."""

    name: str
    trips: int | None


@dataclasses.dataclass(frozen=True)
class HloCost:
    """The result of `hlo_cost`.

    Attributes:
      seconds: of all fusions, loop trips included, without kernels and collectives.
      product_flops: of matrix products without a usable estimate, which `seconds` does not include:
        XLA's table for GPUs lacks 16-bit products with float32 results and takes them for ten times
        slower than they are.
      broken_estimates: number of fusions with an absurd estimate, which are left out.
      kernels, collectives: largest first.
      loops: each loop once, in the order of the text.
      top: the most expensive operations, `(seconds, count, name)`.
    """

    seconds: float
    product_flops: float
    broken_estimates: int
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    loops: tuple[Loop, ...]
    top: tuple[tuple[float, int, str], ...]

    @property
    def unknown_loops(self) -> int:
        """Number of loops whose trips could not be read."""
        return sum(loop.trips is None for loop in self.loops)

    @property
    def windowed_loops(self) -> int:
        """Number of loops that gather a matrix shard by shard: slow, and a flag disables them."""
        return sum("windowed" in loop.name for loop in self.loops)


def hlo_cost(
    text: str, num_devices: int, clock_hz: float, unknown_trips: int = 1, num_top: int = 12
) -> HloCost:
    """Sums the costs in an optimised HLO text.

    Args:
      text: from `compiled.as_text()`.
      num_devices: of the mesh; the group size of a collective that names no groups.
      clock_hz: of the cycles in the text.
      unknown_trips: trips assumed for a loop whose bound is not a constant.
      num_top: length of `HloCost.top`.
    """
    walk = _Walk(computations_of(text), num_devices, clock_hz, unknown_trips)
    walk.visit(walk.computations[""], 1, False)
    kernels = [Kernel(name, *totals) for name, totals in walk.kernels.items()]
    moved = [
        dataclasses.replace(sort, count=count, num_bytes=num_bytes)
        for sort, (count, num_bytes) in walk.collectives.items()
    ]
    top = sorted(((seconds, n, name) for name, (n, seconds) in walk.costs.items()), reverse=True)
    return HloCost(
        seconds=sum(seconds for _, seconds in walk.costs.values()),
        product_flops=walk.product_flops,
        broken_estimates=walk.broken,
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.flops)),
        collectives=tuple(sorted(moved, key=lambda one: -one.num_bytes)),
        loops=tuple(walk.loops.values()),
        top=tuple(top[:num_top]),
    )


class _Walk:
    """Walks over computations and keeps running totals, most of them [count, amount]."""

    def __init__(
        self,
        computations: dict[str, Computation],
        num_devices: int,
        clock_hz: float,
        unknown_trips: int,
    ) -> None:
        self.computations, self.clock_hz = computations, clock_hz
        self.num_devices, self.unknown_trips = num_devices, unknown_trips
        self.broken = 0
        self.product_flops = 0.0
        self.loops: dict[str, Loop] = {}
        self.kernels: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        self.costs: dict[str, list] = collections.defaultdict(lambda: [0, 0.0])
        self.collectives: dict[Collective, list[int]] = collections.defaultdict(lambda: [0, 0])
        # An overlapped collective appears in the fusion that starts it, in those that run in
        # parallel and in the one that waits for it, each time with the same channel.
        self.started = {
            inner.channel
            for computation in computations.values()
            if computation.starts_collective
            for inner in computation.instructions
            if inner.channel is not None
        }

    def visit(self, computation: Computation, times: int, overlapped: bool) -> None:
        """Counts a computation `times` times."""
        for one in computation.instructions:
            if one.opcode == "while":
                trips = trip_count(one, self.computations)
                self.loops.setdefault(one.name, Loop(one.attribute("body"), trips))
                turns = self.unknown_trips if trips is None else trips
                self.visit(self.computations[one.attribute("body")], times * turns, overlapped)
                continue
            if one.opcode in ("call", "conditional", "async-start"):
                # Every branch of a conditional counts: an upper bound.
                for inner in self._called(one):
                    self.visit(inner, times, overlapped or one.opcode == "async-start")
            elif one.opcode == "fusion":
                for inner in self._called(one):
                    self._add_fused_collectives(one, inner, times)
            elif one.target in _KERNEL_TARGETS:
                _add(self.kernels[one.kernel_name], times, one.stated_flops)
                continue
            elif self._add_collective(one, one, times, overlapped):
                continue
            elif flops := widening_product_flops(one, computation.shapes):
                self.product_flops += times * flops
                continue
            self._add_seconds(one, times)

    def _called(self, one: Instruction) -> Iterator[Computation]:
        return (self.computations[name] for name in one.called if name in self.computations)

    def _add_seconds(self, one: Instruction, times: int) -> None:
        seconds = one.seconds(self.clock_hz)
        if seconds is not None and seconds >= _ABSURD:
            self.broken += times
        elif seconds is not None:
            _add(self.costs[one.operation], times, seconds)

    def _add_fused_collectives(self, fusion: Instruction, inner: Computation, times: int) -> None:
        for one in inner.instructions:
            if one.channel not in self.started or inner.starts_collective:
                scatter = _FUSED_SCATTER in inner.name
                self._add_collective(one, fusion, times, inner.starts_collective, scatter)

    def _add_collective(
        self,
        one: Instruction,
        planned: Instruction,
        times: int,
        overlapped: bool,
        scatter: bool = False,
    ) -> bool:
        """Counts `one` if it is a collective; the compiler's notes are in `planned`."""
        kind = one.opcode.removesuffix("-start")
        if kind not in _KINDS:
            return False
        begun = one.opcode != kind
        shape = re.sub(r"u32\[\]", "", one.shape) if begun else one.shape
        sizes = sizes_in_bytes(shape)
        if begun and kind in ("all-gather", "reduce-scatter", "collective-permute"):
            # The result of a start operation holds inputs, outputs and counters, u32[].
            sizes = sizes[len(sizes) // 2 :]
        size = 2 if kind == "collective-permute" else group_size(one.rest, self.num_devices)
        colors = re.search(r"colors:(\d+)", planned.rest)
        sort = Collective(
            "reduce-scatter" if scatter else kind,
            size,
            int(colors[1]) if colors else None,
            overlapped or (begun and not one.is_sync),
        )
        _add(self.collectives[sort], times, sum(sizes) // size if scatter else sum(sizes))
        return True


def _add(totals: list, times: int, amount: float) -> None:
    totals[0] += times
    totals[1] += times * amount
