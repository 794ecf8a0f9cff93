"""How a matrix of parameters becomes the weight that a layer computes with.

    float32, D split over "fsdp"  --cast-->  compute.dtype  --gather-->  D whole

Casting before gathering halves the bytes that travel. Inside a scan over layers one layer at a time
is whole. The gradient takes the same way back: it is reduced over devices in compute.dtype. For a
plain float32 matrix it is then cast to float32. For a `Master` it stays in compute.dtype, so that a
training step never holds float32 gradients of all layers.

A matrix is a plain array, or a `Weight`: a node of the parameters' tree that stands where the array
would, made of other arrays. A new kind of weight is a subclass of `Weight` and nothing else:

    params["layers"]["mlp"]["up"]["kernel"]     an array [L, D, F], or a Weight of shape [L, D, F]

    KINDS["mine"] = lambda name, matrix: Mine(...)          train.weights="mine" trains it
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import TypeGuard

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from glm_jax.arrays import AbstractArray, Array
from glm_jax.checks import check_choice
from glm_jax.models.products import linear, rows_of, scores
from glm_jax.models.seeds import fold_name
from glm_jax.sharding.mesh import auto_axes, axis_size, constrain, constrain_rows, dividing
from glm_jax.sharding.rules import (
    Axes,
    gathered,
    param_spec,
    path_name,
    width_axes,
    without_layer,
)


class Weight(abc.ABC):
    """A matrix that knows how it is computed with; the base of all kinds but plain arrays.

    A subclass is a dataclass registered with `jax.tree_util.register_dataclass`. Its array fields
    are what is trained, sharded, saved and moved; in stacked layers each has the leading axis L.
    `shape` and `used` must be given. The other methods follow from them, and are there to be
    replaced where a kind has a better way, such as a product without the whole matrix.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the plain matrix."""

    @abc.abstractmethod
    def used(self, dtype: DTypeLike) -> jax.Array:
        """The plain matrix in a dtype; gradients flow through it."""

    def multiply(self, x: jax.Array, num_inputs: int) -> jax.Array:
        """Contracts the last `num_inputs` axes of x with the first of the matrix, in x's dtype."""
        return linear(x, self.used(x.dtype), num_inputs=num_inputs)

    @property
    def beside(self) -> tuple[jax.Array, ...]:
        """Its arrays that are no part of the matrix but added to it; most kinds have none."""
        return ()

    def rows(self, ids: jax.Array, dtype: DTypeLike) -> jax.Array:
        """Of a table [R, D]: its rows by ids [..] -> [.., D]."""
        return rows_of(self.used(dtype), ids)

    def score(self, hidden: jax.Array) -> jax.Array:
        """Of a table [V, D]: float32 logits, [.., D] -> [.., V]."""
        return scores(hidden, self.used(hidden.dtype).T)

    def specs(self, spec: PartitionSpec) -> PyTree[PartitionSpec]:
        """How the arrays are split where the matrix would be split as `spec`.

        An array of the matrix's rank is split as the matrix in those dimensions whose size is the
        matrix's; others are whole.
        """
        names = (*spec, *[None] * (len(self.shape) - len(spec)))

        def of(leaf: AbstractArray) -> PartitionSpec:
            if len(leaf.shape) != len(names):
                return PartitionSpec()
            sizes = zip(names, leaf.shape, self.shape, strict=True)
            return PartitionSpec(*[name if n == whole else None for name, n, whole in sizes])

        return jax.tree.map(of, self)

    def gathered(self, dtype: DTypeLike, spec: PartitionSpec) -> "Matrix":
        """What a layer computes with, its width D whole; spec is the matrix's."""
        del dtype
        return jax.tree.map(gathered, self, self.specs(spec))

    def dropping(self, key: jax.Array) -> "Weight":
        """Itself with its dropout in training, by a key; most kinds have none."""
        del key
        return self

    def cast(self, dtype: DTypeLike) -> "Weight":
        """Itself, its arrays of floating-point numbers in a dtype."""
        return jax.tree.map(functools.partial(cast_floats, dtype=dtype), self)


Matrix = jax.Array | Weight


def cast_floats(array: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Casts an array of floating-point numbers; others stay."""
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Master(Weight):
    """A matrix in float32 whose gradient is taken in compute.dtype.

    Attributes:
      value: float32, the copy that the optimizer updates; it gets no gradient.
      site: zeros of the same shape in compute.dtype; the gradient is taken with respect to them.
    """

    value: jax.Array
    site: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def used(self, dtype: DTypeLike) -> jax.Array:
        """The value cast to the dtype of `site`; its gradient arrives at `site`."""
        return _cast(self.value, self.site).astype(dtype)

    def gathered(self, dtype: DTypeLike, spec: PartitionSpec) -> jax.Array:
        """Cast before it is gathered."""
        return gathered(self.used(dtype), spec)


@jax.custom_vjp
def _cast(value: jax.Array, site: jax.Array) -> jax.Array:
    return value.astype(site.dtype)


def _cast_backward(value: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(value), gradient


_cast.defvjp(lambda value, site: (value.astype(site.dtype), value), _cast_backward)


def is_weight(node: object) -> TypeGuard[Weight]:
    """Whether a node is a `Weight`; for `is_leaf` of jax.tree."""
    return isinstance(node, Weight)


def is_matrix(name: str) -> bool:
    """Whether a parameter multiplies activations; norms and biases are added in their own dtype.

    Those of a prefix multiply no activations, and stay plain float32 arrays.
    """
    return _decays(name) and not name.startswith("prefix/")


def _decays(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in ("kernel", "table", "block_table")


def decay_mask(params: PyTree) -> PyTree[bool]:
    """True where weight decay applies: everything but biases and the scales of norms.

    Token and position embeddings and prefixes do decay, as in the published code, and all arrays of
    a `Weight`.
    """

    def mask(path: tuple, leaf: Matrix) -> PyTree[bool]:
        return jax.tree.map(lambda _: _decays(path_name(path)), leaf)

    return jax.tree.map_with_path(mask, params, is_leaf=is_weight)


def plain(params: PyTree, dtype: DTypeLike) -> PyTree:
    """Replaces every `Weight` of a tree by the plain matrix in a dtype; arrays stay as they are."""
    return jax.tree.map(
        lambda leaf: leaf.used(dtype) if is_weight(leaf) else leaf, params, is_leaf=is_weight
    )


def with_kind(params: PyTree, kind: str) -> PyTree:
    """Replaces every matrix by the weight that KINDS[kind] makes of it; usable inside jit.

    Raises:
      UserError: there is no such kind.
    """
    check_choice("train.weights", kind, sorted(KINDS))
    if kind == "plain":
        return params

    def of(path: tuple, leaf: jax.Array) -> Matrix:
        name = path_name(path)
        if not is_matrix(name):
            return leaf
        make = functools.partial(KINDS[kind], without_layer(name))
        # The matrices of stacked layers become weights one by one.
        is_stacked = name.startswith("layers/") and without_layer(name) == name
        return jax.vmap(make)(leaf) if is_stacked else make(leaf)

    return jax.tree.map_with_path(of, params)


def settle(params: PyTree) -> PyTree:
    """Replaces every `Master` of a tree by the value it is used as."""
    return jax.tree.map(
        lambda leaf: leaf.used(leaf.site.dtype) if isinstance(leaf, Master) else leaf,
        params,
        is_leaf=is_weight,
    )


def as_used(state: PyTree, dtype: str, dropout_key: jax.Array | None = None) -> PyTree:
    """The parameters of one layer, with its matrices cast and gathered.

    Args:
      state: an nnx state of one `Layer`, with paths like attention/query/kernel.
      dtype: that the layer computes in.
      dropout_key: of the layer; None: no dropout. Each matrix has its own, folded from its name.
    """

    def prepare(path: tuple, leaf: Matrix) -> Matrix:
        name = path_name(tuple(key for key in path if isinstance(key, jax.tree_util.DictKey)))
        if not is_matrix(name):
            return leaf
        spec = param_spec(f"layers/0/{name}", leaf.shape)
        if not isinstance(leaf, Weight):
            return gathered(leaf.astype(dtype), spec)
        used = leaf.gathered(dtype, spec)
        if dropout_key is None or not isinstance(used, Weight):
            return used
        return used.dropping(fold_name(dropout_key, name))

    return jax.tree.map_with_path(prepare, state, is_leaf=is_weight)


def multiply(
    x: Float[jax.Array, "..."],
    kernel: Matrix,
    bias: Float[jax.Array, "..."] | None = None,
    num_inputs: int = 1,
) -> Float[jax.Array, "..."]:
    """`glm_jax.models.products.linear` by a matrix of any kind."""
    if not isinstance(kernel, Weight):
        return linear(x, kernel, bias, num_inputs)
    y = kernel.multiply(x, num_inputs)
    return y if bias is None else y + bias.astype(x.dtype)


def look_up(table: Matrix, ids: Int[Array, "B T"], dtype: DTypeLike) -> Float[jax.Array, "B T D"]:
    """Looks up rows of a table [R, D] by ids [B, T] -> [B, T, D], with D split.

    The table stays split: every device looks up its slice of D for the ids of all devices. The
    slices are then exchanged (`exchanged`), once for the sum of all tables. Gathering the table
    instead would move R x D values for B x T rows.
    """
    width = width_axes(table.shape[-1])
    slots = _slots_beside(width)
    ids = constrain(jnp.asarray(ids), "data", slots)
    rows = table.rows(ids, dtype) if isinstance(table, Weight) else rows_of(table, ids)
    return constrain(rows.astype(dtype), "data", slots, width)


def _slots_beside(width: Axes) -> str | None:
    """The axis that splits the slots of rows that are looked up, if it does not split D."""
    return None if isinstance(width, tuple) else "sequence"


def exchanged(x: Float[jax.Array, "B T D"]) -> Float[jax.Array, "B T D"]:
    """Rows from `look_up`, D split, as the layers take them: B and T split, D whole.

    If D is split over "sequence", that axis moves to T first. Both moves at once XLA's partitioner
    makes by gathering all of x on every device.
    """
    if isinstance(width_axes(x.shape[-1]), tuple):
        x = constrain(x, "data", "sequence", "fsdp")
    return constrain_rows(x)


def look_up_tokens(
    table: Matrix, ids: Int[Array, "B T"], dtype: DTypeLike
) -> Float[jax.Array, "B T D"]:
    """`look_up` in a table [V, D] whose V may be sharded over "tensor".

    If both V and D are sharded, each device looks up the rows that it holds, and an all-reduce adds
    them up:

        V = 4 over 2 devices, ids 3 0      device 0, rows 0 1    [  0  row0 ]
                                           device 1, rows 2 3    [ row3  0  ]   sum  [row3 row0]

    This is manually sharded (`jax.shard_map`). XLA's partitioner does the same, but aborts if the
    lookup stands inside a `jax.shard_map` over "data" (docs/decisions/018).
    """
    width = width_axes(table.shape[-1])
    split_width = axis_size("fsdp") > 1 or isinstance(width, tuple)
    if isinstance(table, Weight) or not (split_width and axis_size("tensor") > 1):
        return look_up(table, ids, dtype)
    mesh, wanted = jax.sharding.get_abstract_mesh(), ("data", _slots_beside(width))
    split = [dividing(axis, n, mesh) for axis, n in zip(wanted, ids.shape, strict=True)]

    axes = tuple(axis for axes in split if axes for axis in axes)

    def of_shard(table: jax.Array, ids: Array) -> jax.Array:
        # Its gradient is another one on each device of these axes, and is summed over them.
        table = jax.lax.pcast(table, axes, to="varying")
        local = jnp.asarray(ids) - jax.lax.axis_index("tensor") * len(table)
        return jax.lax.psum(rows_of(table, local, True).astype(dtype), "tensor")

    return jax.shard_map(
        of_shard,
        in_specs=(param_spec("embedding/table", table.shape), PartitionSpec(*split)),
        out_specs=PartitionSpec(*split, width),
        axis_names=set(auto_axes()),
    )(table, ids)


def scorer(table: Matrix, dtype: DTypeLike) -> Callable[[jax.Array], jax.Array]:
    """A table [V, D] as the LM head, [..., D] -> float32 logits [..., V]; cast and gathered once.

    It is gathered as [D, V]: there the slices of D are concatenated. In [V, D] they would have to
    be interleaved, which copies all V x D values.
    """
    spec = param_spec("output/table", table.shape)
    if isinstance(table, Weight):
        weight = table.gathered(dtype, spec)
        if isinstance(weight, Weight):
            return weight.score
        return lambda hidden: scores(hidden, weight.T)
    matrix = gathered(table.astype(dtype).T, PartitionSpec(*spec[::-1]))
    return lambda hidden: scores(hidden, matrix)


# What `train.weights` names: (name, matrix) -> the weight that stands for the matrix. A name is a
# path without the number of a layer, "layers/mlp/up/kernel".
KINDS: dict[str, Callable[[str, jax.Array], Matrix]] = {"plain": lambda _, matrix: matrix}
