"""LoRA: a matrix with a trained product of two small ones beside it (Hu et al. 2021, section 4.1).

    W [D, F] + scale * a [D, r] b [r, F]          y = x W + scale * (x a) b

`base` is a matrix of any kind, quantised ones among them (QLoRA, Dettmers et al. 2023). The product
a b is never made while a layer computes: a row takes r (D + F) multiplications more, not D F.
"""

import dataclasses

import jax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import PyTree

from glm_jax.attention.dropout import dropout
from glm_jax.models.products import linear
from glm_jax.models.weights import Matrix, Weight, cast_floats, is_weight, multiply
from glm_jax.sharding.rules import gathered


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank(Weight):
    """A matrix [*inputs, *outputs] and its adapter; stacked layers put L in front of all arrays.

    Attributes:
      base: the matrix, plain or a `Weight`.
      a: [*inputs, r].
      b: [r, *outputs].
      scale: factor of the product; alpha / r, or alpha / sqrt(r) where it is stabilised for rank.
      rate: of dropout on what `a` is multiplied with, in training.
      key: of that dropout; None: no dropout.
    """

    base: Matrix
    a: jax.Array
    b: jax.Array
    scale: float = dataclasses.field(metadata={"static": True})
    rate: float = dataclasses.field(default=0.0, metadata={"static": True})
    key: jax.Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def beside(self) -> tuple[jax.Array, ...]:
        return tuple(array for array in (self.a, self.b) if array is not None)

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[-1]

    def used(self, dtype: DTypeLike) -> jax.Array:
        """The matrix with the product added, which is computed and added in float32."""
        base = self.base.used("float32") if isinstance(self.base, Weight) else self.base
        return (base.astype("float32") + self.product()).astype(dtype)

    def product(self) -> jax.Array:
        """float32 scale * a b, in the shape of the matrix."""
        a, b = self.a.astype("float32"), self.b.astype("float32")
        make = jax.vmap(_product) if self._is_stacked else _product
        return self.scale * make(a, b)

    def multiply(self, x: jax.Array, num_inputs: int) -> jax.Array:
        y = multiply(x, self.base, num_inputs=num_inputs)
        inner = linear(dropout(x, self.rate, self.key), self.a, num_inputs=num_inputs)
        return y + self.scale * linear(inner, self.b)

    def dropping(self, key: jax.Array) -> "LowRank":
        """Itself, with dropout by a key."""
        return dataclasses.replace(self, key=key) if self.rate else self

    def specs(self, spec: PartitionSpec) -> PyTree[PartitionSpec]:
        """The base is split as the matrix, `a` as its inputs and `b` as its outputs; r is whole."""
        names = (*spec, *[None] * (len(self.shape) - len(spec)))
        lead, inputs = int(self._is_stacked), len(self.a.shape) - 1
        base = self.base.specs(spec) if isinstance(self.base, Weight) else PartitionSpec(*names)
        a = PartitionSpec(*names[:inputs], None)
        b = PartitionSpec(*names[:lead], None, *names[inputs:])
        key = None if self.key is None else PartitionSpec()
        return LowRank(base, a, b, self.scale, self.rate, key)  # type: ignore[arg-type]

    def gathered(self, dtype: DTypeLike, spec: PartitionSpec) -> "LowRank":
        specs, base = self.specs(spec), self.base
        if isinstance(base, Weight):
            base = base.gathered(dtype, spec)
        else:
            base = gathered(base.astype(dtype), spec)
        a, b = gathered(self.a, specs.a), gathered(self.b, specs.b)
        return dataclasses.replace(self, base=base, a=a, b=b)

    def cast(self, dtype: DTypeLike) -> "LowRank":
        """The base is cast; `a` and `b` stay as they are trained, as a prefix does."""
        base = self.base
        base = base.cast(dtype) if isinstance(base, Weight) else cast_floats(base, dtype)
        return dataclasses.replace(self, base=base)

    @property
    def _is_stacked(self) -> bool:
        return len(self.a.shape) + len(self.b.shape) - 2 > len(self.shape)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.numpy.tensordot(a, b, axes=1)


def merged(params: PyTree, dtype: DTypeLike) -> PyTree:
    """Parameters with each adapter added to its matrix.

    Args:
      params: a tree with matrices of any kind.
      dtype: of a merged matrix whose base is no plain array; others keep that of their base.
    """

    def of(leaf: Matrix) -> Matrix:
        if not isinstance(leaf, LowRank):
            return leaf
        return leaf.used(dtype if isinstance(leaf.base, Weight) else leaf.base.dtype)

    return jax.tree.map(of, params, is_leaf=is_weight)
