"""The two matrices of a LoRA apart from their base: put beside it, taken from it, folded in."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import PyTree

from glm_jax.adapters.low_rank import LowRank, merged
from glm_jax.adapters.quantised import is_quantised, quantised_in
from glm_jax.errors import UserError
from glm_jax.models.trees import Params, from_paths, to_paths, unstack_layers
from glm_jax.models.weights import is_weight, plain
from glm_jax.sharding.mesh import on_host
from glm_jax.sharding.rules import param_spec


@dataclasses.dataclass(frozen=True)
class Factors:
    """What stands beside a matrix [*inputs, *outputs] of a listed layer, on the host.

    Attributes:
      a: float32 [*inputs, r].
      b: float32 [r, *outputs].
      scale: factor of the product a b.
      rate: of dropout in training.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float
    rate: float = 0.0

    @property
    def rank(self) -> int:
        """r."""
        return len(self.b)


def with_factors(params: Params, factors: Mapping[str, Factors], mesh: Mesh) -> Params:
    """The parameters with factors beside some matrices; the arrays of the base are shared.

    Args:
      params: stacked or listed; no matrix has factors yet.
      factors: by the path of a listed layer's matrix, "layers/0/attention/query/kernel".
      mesh: that the parameters are on.

    Returns:
      Parameters with listed layers.
    """
    leaves = to_paths(unstack_layers(params))
    placed: dict[tuple, jax.Array] = {}

    def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        # Parts of a fused matrix have the same `a`.
        key = id(array), sharding.spec
        if key not in placed:
            placed[key] = jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        return placed[key]

    for path, part in factors.items():
        base = leaves[path]
        shapes = LowRank(base, part.a, part.b, part.scale)  # type: ignore[arg-type]
        specs = shapes.specs(param_spec(path, base.shape, mesh))
        a, b = (put(getattr(part, n), NamedSharding(mesh, getattr(specs, n))) for n in ("a", "b"))
        leaves[path] = LowRank(base, a, b, part.scale, part.rate)
    return from_paths(leaves)


def factors_of(params: Params) -> dict[str, Factors]:
    """The inverse: the factors by path; empty without any.

    Of several processes all must call this, since each may hold a part.
    """
    copies: dict[int, np.ndarray] = {}

    def host(array: jax.Array) -> np.ndarray:
        if id(array) not in copies:
            copies[id(array)] = np.asarray(on_host(array), np.float32)
        return copies[id(array)]

    return {
        path: Factors(host(leaf.a), host(leaf.b), leaf.scale, leaf.rate)
        for path, leaf in to_paths(unstack_layers(params)).items()
        if isinstance(leaf, LowRank)
    }


def has_factors(params: PyTree) -> bool:
    """Whether some matrix of a tree has factors beside it."""
    return any(isinstance(leaf, LowRank) for leaf in jax.tree.leaves(params, is_leaf=is_weight))


def check_foldable(params: PyTree) -> None:
    """Refuses factors over quantised matrices, of which a sum with them would be none.

    Raises:
      UserError: says what to do.
    """
    if has_factors(params) and any(quantised_in(params)):
        raise UserError(
            "a LoRA is folded into plain matrices, and this model's are quantised: make them plain "
            "with dequantize=True (--dequantize of convert), or load the base as it was before"
        )


def folded(params: Params, dtype: DTypeLike, dequantize: bool = False) -> Params:
    """The same model with plain matrices where factors are; other arrays are shared.

    The sum is taken in float32 and rounded once, to the dtype of the base.

    Args:
      params: stacked or listed.
      dtype: of matrices that were quantised.
      dequantize: quantised matrices become plain too.

    Raises:
      UserError: as `check_foldable`, without `dequantize`.
    """
    if not dequantize:
        check_foldable(params)

    return jax.tree.map(
        lambda leaf: plain(leaf, dtype) if dequantize and is_quantised(leaf) else leaf,
        merged(params, dtype),
        is_leaf=is_weight,
    )
