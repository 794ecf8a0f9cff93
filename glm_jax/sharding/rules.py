"""How parameters are sharded: one table from a parameter's path to mesh axes.

A parameter's path determines its logical axes (`LOGICAL_AXES`); a logical axis is sharded over the
mesh axes that `MESH_AXES` names:

    layers/3/attention/query/kernel [D, N, H] -> (embed, heads, head_dim)
        -> P("fsdp", "tensor"), and P(("fsdp", "sequence"), "tensor") if slots are split

Rows that are split over "sequence" are long, and leave little memory. Parameters and moments are
split over it too, so that its devices do not all hold the same (docs/decisions/034).
"""

import re
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.errors import UserError
from glm_jax.sharding.mesh import AXES, constrain, on_mesh

# What splits a dimension, as in a `PartitionSpec`.
Axes = str | tuple[str, ...] | None

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
    (r"value_head/vector", ("norm",)),
    # `glm_jax.models.prefix`: the hidden layer is split, so that its products are added up.
    (r"prefix/table", ("layers", "pair", "position", "kv_heads", "head_dim")),
    (r"prefix/rows/table", ("position", "norm")),
    (r"prefix/up/kernel", ("norm", "embed")),
    (r"prefix/up/bias", ("norm",)),
    (r"prefix/down/kernel", ("embed", "layers", "pair", "kv_heads", "head_dim")),
    (r"prefix/down/bias", ("layers", "pair", "kv_heads", "head_dim")),
)
# The axes that split the width of every matrix; layers gather it over them before they compute.
WIDTH_AXES = ("fsdp", "sequence")
# Logical axis -> mesh axes; (): not split.
MESH_AXES: dict[str, tuple[str, ...]] = {
    "layers": (),
    "vocab": ("tensor",),
    "embed": WIDTH_AXES,
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "position": (),
    "norm": (),
    "pair": (),
}
# Two key heads cannot be split over four devices; each device then holds both, which is cheap.
WHOLE_IF_INDIVISIBLE = frozenset({"kv_heads"})


@runtime_checkable
class Divisible(Protocol):
    """A parameter that is made of several arrays, and knows how each is split."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that it stands for."""

    def specs(self, spec: PartitionSpec) -> PyTree[PartitionSpec]:
        """Itself with a `PartitionSpec` for each array, where that array would be split by spec."""


def param_shardings(params: PyTree, mesh: Mesh | AbstractMesh) -> PyTree[NamedSharding]:
    """The sharding of every parameter, by its path.

    Args:
      params: nested dict of arrays, of anything with a shape, or of `Divisible` nodes.
      mesh: from `make_mesh`.

    Returns:
      The same tree with a `NamedSharding` instead of each array.

    Raises:
      UserError: a path without a rule, or a dimension that its mesh axis does not divide.
    """

    def sharding(path: tuple, leaf: PyTree) -> PyTree[NamedSharding]:
        spec = param_spec(path_name(path), leaf.shape, mesh)
        if not isinstance(leaf, Divisible):
            return NamedSharding(mesh, spec)
        return jax.tree.map(lambda one: NamedSharding(mesh, one), leaf.specs(spec))

    return jax.tree.map_with_path(
        sharding, params, is_leaf=lambda node: isinstance(node, Divisible)
    )


def path_name(path: tuple) -> str:
    """A path of jax.tree as text: `layers/3/mlp/up/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def without_layer(name: str) -> str:
    """`layers/3/mlp/up/kernel` -> `layers/mlp/up/kernel`, the name in stacked layers."""
    return re.sub(r"^layers/\d+/", "layers/", name)


def logical_axes(name: str, rank: int) -> tuple[str, ...]:
    """The logical axes of the parameter `name`; for stacked layers "layers" comes first.

    Raises:
      UserError: no rule fits, or it fits with another number of dimensions.
    """
    bare = without_layer(name)
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
    """The `PartitionSpec` of the parameter `name`; `mesh` None: the mesh that is set."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    if not set(AXES) <= set(mesh.axis_names):
        return PartitionSpec()
    split: list[Axes] = []
    for axis, size in zip(logical_axes(name, len(shape)), shape, strict=True):
        first = next(iter(MESH_AXES[axis]), None)
        if first is None or (axis in WHOLE_IF_INDIVISIBLE and size % mesh.shape[first]):
            split.append(None)
        elif size % mesh.shape[first]:
            raise UserError(
                f"parameter {name} {tuple(shape)}: dimension {axis!r} of size {size} cannot be "
                f"split over mesh.{first}={mesh.shape[first]}"
            )
        else:
            split.append(_axes_of(axis, size, mesh.shape))
    return PartitionSpec(*split)


def width_axes(size: int) -> Axes:
    """The axes of the mesh that is set which split a width D of `size`; None without a mesh.

    "fsdp", or ("fsdp", "sequence") if slots are split and both divide it.
    """
    return _axes_of("embed", size, jax.sharding.get_abstract_mesh().shape) if on_mesh() else None


def _axes_of(axis: str, size: int, sizes: Mapping[str, int]) -> Axes:
    """The mesh axes of a logical axis whose first mesh axis divides `size`."""
    first, *others = MESH_AXES[axis]
    chosen, shards = [first], sizes[first]
    for other in others:
        if sizes[other] > 1 and size % (shards * sizes[other]) == 0:
            chosen, shards = [*chosen, other], shards * sizes[other]
    return first if len(chosen) == 1 else tuple(chosen)


def gathered(weight: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Gathers a weight, sharded as `spec`, over `WIDTH_AXES` of the mesh that is set.

    It stays sharded over the others: P(("fsdp", "sequence"), "tensor") -> P(None, "tensor").
    """

    def others(names: Axes) -> Axes:
        listed = (names,) if isinstance(names, str) else names or ()
        return tuple(name for name in listed if name not in WIDTH_AXES)

    return constrain(weight, *map(others, spec))
