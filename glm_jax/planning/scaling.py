"""What a step costs on more chips than were compiled for, by arithmetic.

    compute      FLOPs of a chip's rows / (peak x the share of it that a compiled step reaches)
    gathers      parameters in bfloat16, twice (forward, and again backward), behind compute where
                 libtpu puts them there
    gradients    an all-reduce in bfloat16 over the slice, in the open: what libtpu makes of it
    over slices  `glm_jax.planning.slices`, in the open
    memory       at least: parameters, moments, gradients, and the inputs of all layers

All state is split over all chips of a slice (`mesh.fsdp`). The page docs/scaling.md compares this
with programs that were compiled.
"""

import dataclasses
import math

import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from glm_jax.config import Config
from glm_jax.config.training import MeshConfig
from glm_jax.models.flops import flops_per_token
from glm_jax.models.params import abstract_params
from glm_jax.models.trees import to_paths
from glm_jax.planning.chips import Tpu
from glm_jax.planning.estimate import StepTime, collective_seconds
from glm_jax.planning.hlo import Collective
from glm_jax.planning.slices import NETWORKS, sum_over_slices
from glm_jax.sharding.mesh import AXES
from glm_jax.sharding.rules import param_spec
from glm_jax.training.memory import GIB

# float32 parameters and two moments of AdamW; gradients in bfloat16.
_BYTES_OF_STATE, _BYTES_OF_GRADIENT, _BYTES_TO_SEND = 12, 2, 2
_GATHERS = 2
# Where a compiled step waits for its gathers: all 129 ms of GLM-10B's collectives on v5p:4x4x4, and
# no gather of ChatGLM2-6B's on v5e:8x8 but that of the LM head.
_WAITS_FOR_GATHERS = frozenset({"v5p"})


@dataclasses.dataclass(frozen=True)
class Model:
    """What the arithmetic needs to know of a run, whatever the number of chips.

    Attributes:
      shapes: of every parameter, by its path.
      flops_per_token: forward and backward, without recomputation.
      slots: that a chip has in a step.
      saved: bytes of the inputs of all layers for these slots.
    """

    shapes: dict[str, tuple[int, ...]]
    flops_per_token: float
    slots: int
    saved: int

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes.values()))


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips: so many slices of one shape.

    Attributes:
      chip: of `glm_jax.planning.chips.CHIPS`.
      sides: of one slice, in chips.
      count: number of slices.
    """

    chip: Tpu
    sides: tuple[int, ...]
    count: int = 1

    @property
    def size(self) -> int:
        """Chips of one slice."""
        return math.prod(self.sides)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one step.

    Attributes:
      time: milliseconds inside a slice.
      gradient_ms: of these, the sum of gradients.
      between_ms: the sum of gradients over slices.
      least_gib: that a chip holds at least.
      tokens_per_second: of one chip.
      share_of_peak: model FLOPs, without recomputation.
    """

    time: StepTime
    gradient_ms: float
    between_ms: float
    least_gib: float
    tokens_per_second: float
    share_of_peak: float

    @property
    def step_ms(self) -> float:
        return self.time.step_ms + self.between_ms


def model_of(config: Config, rows_per_chip: int) -> Model:
    """The facts of a config; nothing is allocated or compiled."""
    mesh = _mesh(1)
    params = abstract_params(config.resolved_model, mesh)
    slots = rows_per_chip * config.data.sequence_length
    width = jnp.dtype(config.compute.dtype).itemsize
    return Model(
        shapes={path: leaf.shape for path, leaf in to_paths(params).items()},
        flops_per_token=flops_per_token(config, params),
        slots=slots,
        saved=slots * config.model.embed_dim * config.model.num_layers * width,
    )


def cost_on(model: Model, chips: Slice, share: float) -> Cost:
    """The cost of a step.

    Args:
      model: from `model_of`.
      chips: that it runs on.
      share: of the chip's peak that compute and kernels reach, between 0 and 1.

    Raises:
      KeyError: several slices of a chip whose network is not known.
    """
    ideal_ms = 1e3 * model.flops_per_token * model.slots / chips.chip.peak_flops
    sent = model.parameters * _BYTES_TO_SEND

    def milliseconds(kind: str, num_bytes: int, overlapped: bool) -> float:
        one = Collective(kind, chips.size, None, overlapped, 1, num_bytes)
        return 1e3 * collective_seconds(one, chips.chip, chips.sides, chips.size)

    gradients = milliseconds("all-reduce", sent, False)
    gathers = milliseconds("all-gather", _GATHERS * sent, True)
    waits = chips.chip.name in _WAITS_FOR_GATHERS
    time = StepTime(
        compute_ms=ideal_ms / share,
        kernel_ms=0.0,
        waited_ms=gradients + gathers * waits,
        overlapped_ms=gathers * (not waits),
    )
    between = 0.0
    if chips.count > 1:
        network = NETWORKS[chips.chip.name]
        between = 1e3 * sum_over_slices(sent, chips.count, chips.size, network).seconds
    step_ms = time.step_ms + between
    return Cost(
        time,
        gradients,
        between,
        least_gib=(state_bytes(model, chips.size) + model.saved) / GIB,
        tokens_per_second=1e3 * model.slots / step_ms,
        share_of_peak=ideal_ms / step_ms,
    )


def state_bytes(model: Model, fsdp: int) -> int:
    """Bytes of parameters, moments and gradients on one of `fsdp` chips."""
    mesh = _mesh(fsdp)
    held = sum(
        math.prod(NamedSharding(mesh, param_spec(path, shape, mesh)).shard_shape(shape))
        for path, shape in model.shapes.items()
    )
    return held * (_BYTES_OF_STATE + _BYTES_OF_GRADIENT)


def share_reached(model: Model, chip: Tpu, compute_and_kernel_ms: float) -> float:
    """The share of the peak that the FLOPs of a compiled step reach in its compute and kernels."""
    return 1e3 * model.flops_per_token * model.slots / chip.peak_flops / compute_and_kernel_ms


def _mesh(fsdp: int) -> AbstractMesh:
    sizes = MeshConfig(data=1, fsdp=fsdp)
    shape = tuple(getattr(sizes, axis) for axis in AXES)
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))
