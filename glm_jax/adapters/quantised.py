"""Matrices held as integers of 8 or 4 bits, with a scale per output or per group of inputs.

    W [D, F]  ~  values [D, F] * scale [1, F]                   one scale per output, as published
                 values [G, D / G, F] * scale [G, 1, F]         one per output and group of inputs

A product with one scale per output multiplies by it afterwards: no matrix of floating-point numbers
is needed, and what is read from memory is the integers. With groups the matrix is made first, which
on a TPU takes less time than adding up a product per group.

The integers get no gradient. The scale would; training keeps both frozen (`train.quantize_base`).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeGuard

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import PyTree

from glm_jax.attention.platform import target_platform
from glm_jax.models.products import linear, scores
from glm_jax.models.trees import Leaves, Params, from_paths
from glm_jax.models.weights import Weight
from glm_jax.sharding.rules import path_name, without_layer


class _Integers(Weight):
    """What both kinds have: integers in the shape of the matrix, and a scale."""

    values: jax.Array
    scale: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 4 if self.values.dtype == jnp.int4 else 8

    def cast(self, dtype: DTypeLike) -> "Weight":
        """Itself: a scale that is rounded would be another matrix."""
        del dtype
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantised(_Integers):
    """A matrix [*inputs, *outputs]; stacked layers put L in front of all arrays.

    Attributes:
      values: int8, or int4 (`jnp.int4`), in the shape of the matrix.
      scale: [G, *outputs], of any floating dtype. Group g of the inputs, flattened, has scale[g];
        G is 1 for one scale per output.
      num_outputs: axes of the matrix that are outputs.
    """

    values: jax.Array
    scale: jax.Array
    num_outputs: int = dataclasses.field(metadata={"static": True})

    def used(self, dtype: DTypeLike) -> jax.Array:
        shape, lead = self.shape, self.scale.ndim - 1 - self.num_outputs
        values, scale = self.values.astype(jnp.float32), self.scale.astype(jnp.float32)
        if self.num_groups > 1:
            values = values.reshape(*scale.shape[: lead + 1], -1, *scale.shape[lead + 1 :])
            return (values * jnp.expand_dims(scale, lead + 1)).reshape(shape).astype(dtype)
        ones = (1,) * (len(shape) - lead - self.num_outputs)
        scale = scale.reshape(*shape[:lead], *ones, *shape[lead + len(ones) :])
        return (values * scale).astype(dtype)

    def multiply(self, x: jax.Array, num_inputs: int) -> jax.Array:
        weight = dataclasses.replace(self, values=_in_turn(self.values, x))
        if self.num_groups > 1:
            return linear(x, weight.used(x.dtype), num_inputs=num_inputs)
        product = linear if target_platform() == "cpu" else contracted
        y = product(x, weight.values.astype(x.dtype), num_inputs=num_inputs)
        return (y * self.scale[0].astype(jnp.float32)).astype(x.dtype)

    def specs(self, spec: PartitionSpec) -> PyTree[PartitionSpec]:
        """The values are split as the matrix, the scale as its outputs."""
        names = (*spec, *[None] * (len(self.shape) - len(spec)))
        lead = len(self.scale.shape) - 1 - self.num_outputs
        outputs = names[len(names) - self.num_outputs :]
        scale = PartitionSpec(*names[:lead], None, *outputs)
        return Quantised(PartitionSpec(*names), scale, self.num_outputs)  # type: ignore[arg-type]

    @property
    def num_groups(self) -> int:
        """G."""
        return self.scale.shape[len(self.scale.shape) - 1 - self.num_outputs]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantisedTable(_Integers):
    """A table [R, D], looked up or multiplied with as the LM head; its rows are the outputs.

    Attributes:
      values: int8 or int4, [R, D].
      scale: [R, G], of any floating dtype; G is 1 for one scale per row.
    """

    values: jax.Array
    scale: jax.Array

    @property
    def num_groups(self) -> int:
        """G."""
        return self.scale.shape[-1]

    def used(self, dtype: DTypeLike) -> jax.Array:
        return _scaled_rows(self.values, self.scale, dtype)

    def rows(self, ids: jax.Array, dtype: DTypeLike) -> jax.Array:
        return _scaled_rows(self.values[ids], self.scale[ids], dtype)

    def score(self, hidden: jax.Array) -> jax.Array:
        table = dataclasses.replace(self, values=_in_turn(self.values, hidden))
        if self.num_groups > 1:
            return scores(hidden, table.used(hidden.dtype).T)
        logits = scores(hidden, table.values.T.astype(hidden.dtype))
        return logits * self.scale[:, 0].astype(jnp.float32)

    def specs(self, spec: PartitionSpec) -> PyTree[PartitionSpec]:
        """The values are split as the table, the scale as its rows."""
        names = (*spec, *[None] * (2 - len(spec)))
        scale = PartitionSpec(names[0], None)
        return QuantisedTable(PartitionSpec(*names), scale)  # type: ignore[arg-type]


AnyQuantised = Quantised | QuantisedTable


def contracted(x: jax.Array, kernel: jax.Array, num_inputs: int) -> jax.Array:
    """`glm_jax.models.products.linear` without merging axes of the kernel.

    A TPU holds an array in tiles of its last two axes, integers in larger ones than bfloat16. To
    merge axes of [32, 128, 4096] or [4096, 32, 128] it moves all numbers: in a step of ChatGLM2-6B
    with 8 rows a fifth of the cycles.
    """
    axes = tuple(range(x.ndim - num_inputs, x.ndim)), tuple(range(num_inputs))
    return jax.lax.dot_general(x, kernel, (axes, ((), ())))


def _in_turn(values: jax.Array, x: jax.Array) -> jax.Array:
    """The values, in a form that depends on the activations that they multiply.

    On CPU a product needs a copy of the matrix in floating-point numbers. XLA makes the copies of
    all matrices before the first product where nothing holds it back, so the model would lie in
    memory unpacked. Here a number that is always 0 is read from x.
    """
    if target_platform() != "cpu" or jax.sharding.get_abstract_mesh().size > 1:
        return values
    first = jax.lax.stop_gradient(x.reshape(-1)[0])
    zero = jnp.minimum(jnp.abs(first), 0).astype(jnp.int8)
    return values.astype(jnp.int8) ^ zero


def _scaled_rows(values: jax.Array, scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    """[.., D] times its groups' scale [.., G]."""
    grouped = values.reshape(*scale.shape, -1).astype(jnp.float32)
    return (grouped * scale[..., None].astype(jnp.float32)).reshape(values.shape).astype(dtype)


def is_quantised(node: object) -> TypeGuard[AnyQuantised]:
    """Whether a node of a tree of parameters is one of the two kinds."""
    return isinstance(node, _Integers)


def quantised_in(params: PyTree) -> Iterator[AnyQuantised]:
    """The quantised matrices of a tree of parameters."""
    leaves = jax.tree.leaves(params, is_leaf=is_quantised)
    return (leaf for leaf in leaves if is_quantised(leaf))


def arrays_by_name(params: Params) -> Leaves:
    """`{"layers/3/mlp/up/kernel/values": array}`: each array of a weight by a name of its own."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}


def from_arrays(arrays: Mapping[str, PyTree]) -> Params:
    """The inverse of `arrays_by_name`, for plain and quantised parameters.

    `../values` beside `../scale` are one quantised matrix; `norm/scale` stays what it is.
    """
    leaves = dict(arrays)
    for name in arrays:
        path, _, last = name.rpartition("/")
        if last == "values" and path.endswith(("/kernel", "/table")):
            leaves[path] = quantised(path, leaves.pop(name), leaves.pop(f"{path}/scale"))
    return from_paths(leaves)


def quantised(path: str, values: PyTree, scale: PyTree) -> AnyQuantised:
    """The weight of a path that consists of two arrays, or of anything with a shape."""
    if path.endswith("/table"):
        return QuantisedTable(values, scale)
    stacked = path.startswith("layers/") and without_layer(path) == path
    return Quantised(values, scale, len(scale.shape) - 1 - stacked)


def abstract_quantised(
    path: str, shape: tuple[int, ...], values: DTypeLike, groups: int, scale: DTypeLike = "float16"
) -> AnyQuantised:
    """The shapes of a quantised matrix of a listed layer, or of a table.

    Args:
      path: of the parameter.
      shape: of the plain matrix.
      values, scale: dtypes.
      groups: of its inputs.
    """
    is_table = path.endswith("/table")
    of_scale = (shape[0], groups) if is_table else (groups, *shape[num_inputs(path) :])
    return quantised(
        path, jax.ShapeDtypeStruct(shape, values), jax.ShapeDtypeStruct(of_scale, scale)
    )


def num_bytes(params: PyTree) -> int:
    """Of all arrays of a tree, or of their shapes; two values of int4 take one byte."""
    leaves = jax.tree.leaves(params)
    return sum(
        -(-leaf.size // 2) if leaf.dtype == jnp.int4 else leaf.size * leaf.dtype.itemsize
        for leaf in leaves
    )


def num_inputs(path: str) -> int:
    """Axes of a layer's matrix that are inputs: of attention's output the heads and their H."""
    return 2 if path.endswith("attention/out/kernel") else 1
