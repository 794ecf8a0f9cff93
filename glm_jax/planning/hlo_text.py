"""Parses optimised HLO text: computations, instructions, shapes, replica groups, loop bounds.

%add.2 (x: s32[], y: s32[]) -> s32[] {                               a computation
  %x = s32[] parameter(0)
  ROOT %sum = s32[] add(%x, %y), metadata={op_name="jit(f)/add"}     name, shape, opcode, rest
}
"""

import dataclasses
import functools
import math
import re

_BYTES: dict[str, float] = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8,
    "c64": 8, "c128": 16,
}  # fmt: skip
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction, which is one line of the text.

    Attributes:
      name: without the "%".
      shape: of the result, as text.
      opcode: such as "fusion", "while", "all-gather-start".
      rest: operands and attributes, as text.
      is_root: whether it is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    rest: str
    is_root: bool = False

    def attribute(self, name: str) -> str:
        """The computation that an attribute such as `body` or `condition` names."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        if found is None:
            raise ValueError(f"HLO instruction {self.name} has no {name}=")
        return found[1]

    @property
    def called(self) -> list[str]:
        """The names of the computations it calls."""
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.rest)
        named = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
        return named + _CALLED.findall(self.rest)

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.\-]+)", self.rest.split(")")[0])

    @property
    def bare_name(self) -> str:
        """`attention_forward.12.clone` -> `attention_forward`."""
        return re.sub(r"(\.(\d+|clone|remat\d*))+$", "", self.name)

    @property
    def kernel_name(self) -> str:
        """The name of a Pallas kernel: its own, or else the jax scope of the call."""
        found = re.search(r'op_name="[^"]*?([^"/]+)/pallas_call"', self.rest)
        return found[1] if found and self.bare_name == "pallas_call" else self.bare_name

    @property
    def is_sync(self) -> bool:
        """Whether a start of a collective also waits for its end (XLA for GPUs)."""
        return '"is_sync":true' in self.rest

    @property
    def operation(self) -> str:
        """The last parts of its name in jax, `layers/mlp/dot_general`, or else its own name."""
        found = re.search(r'op_name="([^"]+)"', self.rest)
        return "/".join(found[1].split("/")[-3:]) if found else self.bare_name

    @property
    def target(self) -> str | None:
        """The target of a custom call, else None."""
        found = re.search(r'custom_call_target="([^"]*)"', self.rest)
        return found[1] if found else None

    @property
    def channel(self) -> int | None:
        """The channel of a collective, else None."""
        found = re.search(r"\bchannel_id=(\d+)", self.rest)
        return int(found[1]) if found else None

    def seconds(self, clock_hz: float) -> float | None:
        """The time that the compiler estimates; None if it gives none.

        XLA for GPUs gives microseconds, from one cost model or several. The last one, "sol" (speed
        of light), knows measured matrix products and is used.

        Args:
          clock_hz: of libtpu's cycles.
        """
        cycles = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        if cycles:
            return int(cycles[1]) / clock_hz
        costs = re.search(r'"reification_cost":\[([^\]]*)\]', self.rest)
        spent = re.findall(r'"exec_time_us":([\d.e+-]+)', costs[1]) if costs else ()
        return float(spent[-1]) / 1e6 if spent else None

    @property
    def stated_flops(self) -> int:
        """The FLOPs of a Pallas call with a `CostEstimate`, else 0."""
        found = re.search(r'"cost_estimate":\{"flops":"(\d+)"', self.rest)
        return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named computation: its instructions in order."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def shapes(self) -> dict[str, str]:
        """The shapes of its instructions' results, by name."""
        return {one.name: one.shape for one in self.instructions}

    @functools.cached_property
    def starts_collective(self) -> bool:
        """Whether it starts a collective that another computation waits for."""
        return any(one.target == "AsyncCollectiveStart" for one in self.instructions)


def computations_of(text: str) -> dict[str, Computation]:
    """The computations of a module by name; the entry also has the empty name."""
    found: dict[str, Computation] = {}
    header: re.Match | None = None
    lines: list[Instruction] = []
    for line in text.splitlines():
        if header is None:
            header, lines = _HEADER.match(line), []
        elif line.startswith("}"):
            found[header[2]] = Computation(header[2], tuple(lines))
            if header[1]:
                found[""] = found[header[2]]
            header = None
        elif (parsed := _INSTRUCTION.match(line)) is not None:
            root, name, shape, opcode, rest = parsed.groups()
            lines.append(Instruction(name, shape, opcode, rest, root is not None))
    if "" not in found:
        raise ValueError("the HLO text has no ENTRY computation")
    return found


def sizes_in_bytes(shape: str) -> list[int]:
    """Bytes of every array in a shape: `(bf16[2,3]{1,0}, s32[])` -> [12, 4]."""
    return [
        math.ceil(_BYTES[dtype] * math.prod(_dimensions(dims)))
        for dtype, dims in _ARRAY.findall(shape)
        if dtype in _BYTES
    ]


def _dimensions(text: str) -> list[int]:
    """`"4,6"` -> [4, 6]."""
    return [int(size) for size in text.split(",") if size]


def widening_product_flops(one: Instruction, shapes: dict[str, str]) -> int:
    """FLOPs of a cuBLAS call with 16-bit inputs and a float32 result; 0 for anything else.

    f32[4,6] custom-call(%a, %b), %a = bf16[4,5] .., "lhs_contracting_dimensions":["1"]
                                                                    -> 2 * 4 * 6 * 5 = 240
    """
    if not (one.target or "").startswith("__cublas"):
        return 0
    result = _ARRAY.search(one.shape)
    narrow = _ARRAY.search(shapes.get(one.operands[0], "") if one.operands else "")
    contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.rest)
    if result is None or narrow is None or contracted is None:
        return 0
    if result[1] != "f32" or narrow[1] not in ("bf16", "f16"):
        return 0
    sizes = _dimensions(narrow[2])
    inner = math.prod(sizes[int(axis)] for axis in re.findall(r"\d+", contracted[1]))
    return 2 * inner * math.prod(_dimensions(result[2]))


def group_size(rest: str, num_devices: int) -> int:
    """The number of devices in one replica group, in any of XLA's notations.

    replica_groups={{0,1,2,3},{4,5,6,7}}                          -> 4
    replica_groups=[2,8]<=[16]                                    -> 8
    replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_1'}         -> 2
    replica_groups={}                                             -> all
    """
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if iota:
        return int(iota[1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        # An axis may be split further: 'axis_0':(1)4 is a sub-axis of size 4.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    return num_devices


def trip_count(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Trips of a loop that counts from 0 up to a constant; None if the bound is not constant."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition = computations[loop.attribute("condition")]
    root = next(one for one in condition.instructions if one.is_root)
    constants = _constants(condition)
    bounds = [constants[name] for name in root.operands if name in constants]
    if root.opcode == "fusion" and not bounds:
        bounds = [n for name in root.called for n in _constants(computations[name]).values()]
    return bounds[0] if len(bounds) == 1 else None


def _constants(computation: Computation) -> dict[str, int]:
    """The integer constants of a computation by name."""
    found = {}
    for one in computation.instructions:
        value = re.match(r"(\d+)\)", one.rest)
        if one.opcode == "constant" and value and re.match(r"[su]32\[\]", one.shape):
            found[one.name] = int(value[1])
    return found
