"""Quantises a model that is in memory, matrix by matrix; files are quantised as they are read."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from glm_jax.adapters.quantised import AnyQuantised, num_inputs, quantised, quantised_in
from glm_jax.adapters.quantising import Quantize
from glm_jax.errors import UserError
from glm_jax.interop.packed import TABLES, is_quantisable, quantise, stored_dtype
from glm_jax.models.trees import Params, from_paths, to_paths
from glm_jax.models.weights import is_weight
from glm_jax.sharding.rules import param_spec, without_layer


def quantise_params(params: Params, mesh: Mesh, how: Quantize) -> Params:
    """The same model with its matrices quantised.

    Args:
      params: stacked or listed; each matrix is released once it is quantised, if nothing else holds
        it.
      mesh: that they are on.

    Raises:
      UserError: it is quantised already, lies on several hosts, or groups do not divide inputs.
    """
    if any(quantised_in(params)):
        raise UserError("quantize: the model is quantised already; load it without")
    leaves = to_paths(params)
    params.clear()
    for path in list(leaves):
        if is_quantisable(path, how):
            leaf = leaves.pop(path)
            matrix = leaf.used("float32") if is_weight(leaf) else leaf
            leaves[path] = _quantised(path, matrix, mesh, how)
    return from_paths(leaves)


def _quantised(path: str, leaf: jax.Array, mesh: Mesh, how: Quantize) -> AnyQuantised:
    if not leaf.is_fully_addressable:
        raise UserError(
            f"quantize: {path} lies on several hosts; quantise it on one, by python -m "
            "glm_jax.convert --quantize, and load what that writes"
        )
    matrices = np.asarray(leaf)
    stacked = path.startswith("layers/") and without_layer(path) == path
    parts = [_rounded(path, matrix, how) for matrix in (matrices if stacked else matrices[None])]
    values, scale = (np.stack(part) if stacked else part[0] for part in zip(*parts, strict=True))
    node = quantised(path, values, scale)
    specs = node.specs(param_spec(path, node.shape, mesh))
    return jax.tree.map(
        lambda array, spec: jax.device_put(array, NamedSharding(mesh, spec)), node, specs
    )


def _rounded(path: str, matrix: np.ndarray, how: Quantize) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [*inputs, *outputs], or a table, and its scale."""
    if path in TABLES:
        values, scale = quantise(path, matrix, how)
        return values.astype(stored_dtype(how.bits)), scale
    shape, inputs = matrix.shape, num_inputs(path)
    outputs = shape[inputs:]
    values, scale = quantise(path, matrix.reshape(-1, int(np.prod(outputs))).T, how)
    scale = np.ascontiguousarray(scale.T).reshape(-1, *outputs)
    return values.T.astype(stored_dtype(how.bits)).reshape(shape), scale
