"""The mesh of devices, and how batches and activations are sharded over it.

The rows of a batch are sharded over ("data", "fsdp") and the slots of a row over "sequence"; XLA
derives the rest.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.errors import UserError, say_once

if TYPE_CHECKING:
    from glm_jax.batch import Batch

if TYPE_CHECKING:
    from glm_jax.config.training import MeshConfig

P = ParamSpec("P")
R = TypeVar("R")
AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")


def make_mesh(config: "MeshConfig", devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices along ("data", "fsdp", "tensor", "sequence").

    Args:
      config: the size of each axis; one may be -1 and takes the devices that the others leave.
      devices: None: all of `jax.devices()`.

    Returns:
      A mesh whose axes are all Auto: XLA shards what is not constrained.

    Raises:
      UserError: the product of the sizes is not the number of devices.
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
    """Shapes that use all devices; those that change fewest of the requested sizes come first."""
    divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
    shapes = [
        s for s in itertools.product(divisors, repeat=len(AXES)) if math.prod(s) == num_devices
    ]
    shapes.sort(key=lambda shape: sum(a != b for a, b in zip(shape, asked, strict=True)))
    return ", ".join(map(str, shapes[:4]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over ("data", "fsdp"), slots over "sequence", for every field [B, T] of a Batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, "sequence"))


def placed(batch: "Batch", mesh: Mesh) -> "Batch":
    """Puts a Batch on the mesh like `batch_sharding`, but only over the axes that divide it."""
    rows, length = batch.shape
    split = dividing(BATCH_AXES, rows, mesh, "rows"), dividing("sequence", length, mesh, "slots")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(*split)))


def with_mesh_of_params(run: Callable[P, R]) -> Callable[P, R]:
    """Wraps a jitted function whose first argument is parameters: it is called with their mesh set.

    Without a mesh the attention kernels do not know how to split a call over several devices, and
    refuse it, and activations are not constrained to be sharded like rows. Everything that takes
    the mesh from its parameters goes through here: scores, losses, decoding, beams, samples.
    """

    @functools.wraps(run)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        mesh = mesh_of(args[0])
        if mesh is None:
            return run(*args, **kwargs)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run(*args, **kwargs)

    return call


def mesh_of(params: PyTree[jax.Array]) -> Mesh | None:
    """The mesh that parameters are on; None if they are on a single device without a mesh."""
    sharding = jax.tree.leaves(params)[0].sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def is_first() -> bool:
    """Whether this is the first process, which writes the files that are written once."""
    return jax.process_index() == 0


def on_host(array: jax.Array) -> np.ndarray:
    """An array's values; if they are spread over processes, all processes must call this."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def row_groups(mesh: Mesh) -> int:
    """The number of shards that `batch_sharding` makes of the rows of a batch.

    Inside a `jax.shard_map`: of the rows that this call holds.
    """
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis not in _manual_axes())


def slot_groups(mesh: Mesh) -> int:
    """The number of shards that `batch_sharding` makes of the slots of a row."""
    return mesh.shape["sequence"]


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def on_mesh() -> bool:
    """Whether a mesh with this module's axes is set (`jax.set_mesh`, `use_abstract_mesh`)."""
    return set(AXES) <= set(jax.sharding.get_abstract_mesh().axis_names)


def slots_are_split() -> bool:
    """Whether the mesh that is set shards the slots of a row, and no `jax.shard_map` has yet."""
    return axis_size("sequence") > 1


def auto_axes() -> tuple[str, ...]:
    """Axes of the mesh that is set, except those manual in a `jax.shard_map`; () without a mesh."""
    mesh, manual = jax.sharding.get_abstract_mesh(), _manual_axes()
    return tuple(axis for axis in mesh.axis_names if axis not in manual) if on_mesh() else ()


def axis_size(axis: str) -> int:
    """Number of devices along an axis of `auto_axes`; 1 for any other axis."""
    return jax.sharding.get_abstract_mesh().shape[axis] if axis in auto_axes() else 1


def constrain(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Constrains x to be sharded over `axes`, one entry per dimension, if a mesh is set.

    Axes that are manual in a `jax.shard_map` are left out, and so are those that do not divide
    their dimension: a step of decoding has one slot per row and any number of rows.
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
    """Those of `axes`, in turn, that divide `size` and are not manually sharded.

    Args:
      axes: wanted for a dimension.
      size: of the dimension.
      mesh: has the axes.
      what: plural noun for the dimension, "rows". With it a warning is printed, once, about an axis
        that does not divide `size`: its devices all compute the same.
    """
    manual = frozenset(getattr(mesh, "manual_axes", ()))
    chosen: tuple[str, ...] = ()
    for name in (axes,) if isinstance(axes, str) else axes or ():
        if name in manual or name not in mesh.shape:
            continue
        shards = math.prod(mesh.shape[other] for other in (*chosen, name))
        if size % shards == 0:
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
    """Constrains activations [B, T, ...] to be sharded like their batch, if a mesh is set."""
    return constrain(x, BATCH_AXES, "sequence")
