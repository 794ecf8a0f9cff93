"""Which device holds what: the mesh, and one table from parameter path to mesh axes.

A parameter's path names its logical axes (`LOGICAL_AXES`), a logical axis is split over at most one
mesh axis (`MESH_AXES`):

    layers/3/attention/query/kernel [D, N, H] -> (embed, heads, head_dim) -> P("fsdp", "tensor")

Rows of a batch are split over ("data", "fsdp"), the places of a row over "sequence"; XLA derives
everything else.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from glm_jax.config import MeshConfig
from glm_jax.errors import UserError, say_once

P = ParamSpec("P")
R = TypeVar("R")

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")

# Parameter path (the number of a listed layer left out) -> logical axis of each dimension.
LOGICAL_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(embedding|output)/table", ("vocab", "embed")),
    (r"positions/(table|block_table)", ("position", "embed")),
    (r"(.*/)?\w*norm/(scale|bias)", ("norm",)),
    (r"layers/attention/query/kernel", ("embed", "heads", "head_dim")),
    (r"layers/attention/query/bias", ("heads", "head_dim")),
    (r"layers/attention/(key|value)/kernel", ("embed", "kv_heads", "head_dim")),
    (r"layers/attention/(key|value)/bias", ("kv_heads", "head_dim")),
    (r"layers/attention/out/kernel", ("heads", "head_dim", "embed")),
    (r"layers/mlp/(gate|up)/kernel", ("embed", "mlp")),
    (r"layers/mlp/(gate|up)/bias", ("mlp",)),
    (r"layers/mlp/down/kernel", ("mlp", "embed")),
    (r"layers/(attention/out|mlp/down)/bias", ("norm",)),
)

# Logical axis -> mesh axis; None: not split.
MESH_AXES: dict[str, str | None] = {
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "position": None,
    "norm": None,
}

# Two key heads cannot be split over four devices; each then holds both, which cost it little.
WHOLE_IF_INDIVISIBLE = frozenset({"kv_heads"})


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices along ("data", "fsdp", "tensor", "sequence").

    Args:
      config: the size of each axis; one may be -1 and takes what the others leave.
      devices: None: all there are.

    Returns:
      A mesh whose axes are all Auto: XLA places what is not constrained.

    Raises:
      UserError: the sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [getattr(config, axis) for axis in AXES]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        asked = ", ".join(f"mesh.{a}={getattr(config, a)}" for a in AXES)
        raise UserError(
            f"{asked} asks for {'a multiple of ' if -1 in sizes else ''}{known} devices; there are "
            f"{len(devices)}; sizes ({', '.join(AXES)}) that fit: {_choices(len(devices), sizes)}"
        )
    axis_types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=axis_types, devices=devices)


def _choices(num_devices: int, asked: list[int]) -> str:
    """The shapes that use all devices, those that change fewest of the sizes asked for first."""
    divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
    shapes = [
        s for s in itertools.product(divisors, repeat=len(AXES)) if math.prod(s) == num_devices
    ]
    shapes.sort(key=lambda shape: sum(a != b for a, b in zip(shape, asked, strict=True)))
    return ", ".join(map(str, shapes[:4]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over ("data", "fsdp"), places over "sequence", for every field [B, T] of a Batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, "sequence"))


def placed(batch: Any, mesh: Mesh) -> Any:
    """A Batch on the mesh as `batch_sharding` has it, over the axes that divide it."""
    rows, length = batch.shape
    split = dividing(BATCH_AXES, rows, mesh, "rows"), dividing("sequence", length, mesh, "slots")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(*split)))


def with_mesh_of_params(run: Callable[P, R]) -> Callable[P, R]:
    """A jitted function whose first argument is parameters, called with their mesh set.

    Without it attention's kernels do not know how to split a call over several devices, and refuse;
    and nothing asks for activations split as rows are. Everything that computes with parameters as
    they lie goes through here: scores, losses, decoding, beams, samples while training.
    """

    @functools.wraps(run)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        mesh = mesh_of(args[0])
        if mesh is None:
            return run(*args, **kwargs)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run(*args, **kwargs)

    return call


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters lie on; None for one device that belongs to none."""
    sharding = jax.tree.leaves(params)[0].sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def row_groups(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits the rows of a batch.

    Inside a `jax.shard_map`: those of the rows that are there.
    """
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis not in _manual_axes())


def place_groups(mesh: Mesh) -> int:
    """Into how many parts `batch_sharding` splits the places of a row."""
    return mesh.shape["sequence"]


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """The sharding of every parameter, by its path.

    Args:
      params: nested dict of arrays or of anything with a shape.
      mesh: from `make_mesh`.

    Returns:
      The same tree with a `NamedSharding` in place of each array.

    Raises:
      UserError: no rule for a path, or a dimension that its mesh axis does not divide.
    """
    return jax.tree.map_with_path(
        lambda path, leaf: NamedSharding(mesh, param_spec(path_name(path), leaf.shape, mesh)),
        params,
    )


def path_name(path: tuple) -> str:
    """`layers/3/mlp/up/kernel` for a path of jax.tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def logical_axes(name: str, rank: int) -> tuple[str, ...]:
    """The logical axes of the parameter `name`; stacked layers have "layers" in front.

    Raises:
      UserError: no rule fits, or it fits with another number of dimensions.
    """
    bare = re.sub(r"^layers/\d+/", "layers/", name)
    for pattern, axes in LOGICAL_AXES:
        if re.fullmatch(pattern, bare):
            stacked = bare == name and name.startswith("layers/")
            axes = ("layers", *axes) if stacked else axes
            if len(axes) != rank:
                raise UserError(f"parameter {name} has {rank} dimensions; its rule gives {axes}")
            return axes
    raise UserError(f"parameter {name} has no rule in glm_jax.sharding.LOGICAL_AXES")


def param_spec(
    name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh | None = None
) -> PartitionSpec:
    """How the parameter `name` is split; `mesh` None: over the one that is set."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    if not set(AXES) <= set(mesh.axis_names):
        return PartitionSpec()
    axes = logical_axes(name, len(shape))
    mesh_axes = [MESH_AXES[axis] for axis in axes]
    for index, (axis, mesh_axis, size) in enumerate(zip(axes, mesh_axes, shape, strict=True)):
        if mesh_axis is not None and size % mesh.shape[mesh_axis]:
            if axis in WHOLE_IF_INDIVISIBLE:
                mesh_axes[index] = None
                continue
            raise UserError(
                f"parameter {name} {tuple(shape)}: dimension {axis!r} of size {size} cannot be "
                f"split over mesh.{mesh_axis}={mesh.shape[mesh_axis]}"
            )
    return PartitionSpec(*mesh_axes)


def whole_over(axis: str, weight: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Gathers a weight split as `spec` over one axis of the mesh that is set; the rest stays split.

    P("fsdp", "tensor") whole over "fsdp" is P(None, "tensor").
    """
    return constrain(weight, *[None if name == axis else name for name in spec])


def on_mesh() -> bool:
    """Whether a mesh with this module's axes is set (`jax.set_mesh`, `use_abstract_mesh`)."""
    return set(AXES) <= set(jax.sharding.get_abstract_mesh().axis_names)


def places_are_split() -> bool:
    """Whether the mesh that is set splits the places of a row, and no `jax.shard_map` has yet."""
    return axis_size("sequence") > 1


def auto_axes() -> tuple[str, ...]:
    """Axes of the mesh that is set, less those that a `jax.shard_map` has split; () without one."""
    mesh, manual = jax.sharding.get_abstract_mesh(), _manual_axes()
    return tuple(axis for axis in mesh.axis_names if axis not in manual) if on_mesh() else ()


def axis_size(axis: str) -> int:
    """Devices along an axis of `auto_axes`; 1 for any other."""
    return jax.sharding.get_abstract_mesh().shape[axis] if axis in auto_axes() else 1


def constrain(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Asks for x split over `axes`, one entry a dimension, where a mesh is set.

    Left out are axes that a `jax.shard_map` has split already, and those that do not divide their
    dimension: a step of decoding has one place a row, and as many rows as are asked for.
    """
    if not on_mesh():
        return x
    mesh = jax.sharding.get_abstract_mesh()
    split = [dividing(axis, size, mesh) for axis, size in zip(axes, x.shape, strict=False)]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*split))


def dividing(
    axes: str | tuple[str, ...] | None,
    size: int,
    mesh: Mesh | AbstractMesh,
    what: str | None = None,
) -> tuple[str, ...] | None:
    """Of the axes for a dimension, in turn, those that divide it and are not split by hand yet.

    With `what` the dimension counts, it is said once of an axis that does not: its devices all
    compute the same.
    """
    manual = frozenset(getattr(mesh, "manual_axes", ()))
    chosen: tuple[str, ...] = ()
    for name in (axes,) if isinstance(axes, str) else axes or ():
        if name in manual or name not in mesh.shape:
            continue
        parts = math.prod(mesh.shape[other] for other in (*chosen, name))
        if size % parts == 0:
            chosen = (*chosen, name)
        elif what is not None and size > 1:
            say_once(
                f"{what} over {name}",
                f"{size} {what} cannot be split over mesh.{name}={mesh.shape[name]}, so its "
                "devices all compute the same",
            )
    return chosen or None


def _manual_axes() -> frozenset[str]:
    return frozenset(jax.sharding.get_abstract_mesh().manual_axes)


def constrain_rows(x: jax.Array) -> jax.Array:
    """Keeps activations [B, T, ...] split as their batch is, where a mesh is set."""
    return constrain(x, BATCH_AXES, "sequence")
