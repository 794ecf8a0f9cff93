"""The gradient of a batch in parts, one after the other, and over replicas of the parameters.

The coefficients of the whole batch are known before the first part, so that parts only add up. What
they add up to is reduced over replicas once, behind the last part:

    device of "data"    0: part 0 + part 1 --+
                                             +-- sum over "data"
                        1: part 0 + part 1 --+

Left to XLA, every part would be reduced (measured: 4 parts, 4 times the bytes). Over "fsdp" each
part is reduced all the same: there a device keeps only its share of the sum.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from glm_jax.batch import Batch
from glm_jax.sharding.mesh import BATCH_AXES, constrain

# (sites, params, key, part, scale) -> (gradient of sites, sums).
GradientOfPart = Callable[..., tuple[Any, Any]]


def sum_of_parts(
    gradient_of_part: GradientOfPart,
    sites: Any,
    params: Any,
    keys: jax.Array,
    batch: Batch,
    scale: Any,
) -> tuple[Any, Any]:
    """The gradient and the sums of a batch, as many parts as there are keys.

    Args:
      gradient_of_part: of one part.
      sites, params: handed to it.
      keys: [parts], of each part's dropout.
      batch: [B, T]; part i is the rows i, i + parts, ..
      scale: the loss's coefficients, arrays [B, ...].

    Returns:
      As of one part; of several parts the gradient is float32.
    """
    parts = len(keys)
    if parts == 1:
        return gradient_of_part(sites, params, keys[0], batch, scale)
    split = jax.tree.map(lambda leaf: _split_rows(leaf, parts), (batch, scale))

    def of_part(part: Any) -> tuple[Any, Any]:
        key, (rows, scale) = part
        gradient, sums = gradient_of_part(sites, params, key, rows, scale)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient), sums

    def add_part(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    shapes = jax.eval_shape(of_part, jax.tree.map(lambda leaf: leaf[0], (keys, split)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add_part, zeros, (keys, split))[0]


def sum_over_replicas(
    gradient_of_part: GradientOfPart,
    sites: Any,
    params: Any,
    keys: jax.Array,
    batch: Batch,
    scale: Any,
) -> tuple[Any, Any]:
    """`sum_of_parts`, each device of "data" of its own rows, then their sum.

    The mesh must be set, and `gradient_of_part` must not draw anything by row.
    """

    def of_replica(*arguments: Any) -> tuple[Any, Any]:
        return jax.lax.psum(sum_of_parts(gradient_of_part, *arguments), "data")

    rows, whole = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(
        of_replica,
        in_specs=(whole, whole, whole, rows, rows),
        out_specs=whole,
        axis_names={"data"},
        check_vma=False,
    )(sites, params, keys, batch, scale)


def _split_rows(leaf: jax.Array, parts: int) -> jax.Array:
    """[B, T] -> [parts, B / parts, T].

    Striding leaves every row on its device; the first B / parts rows may all lie on one.
    """
    split = jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)
    return constrain(split, None, BATCH_AXES, "sequence")
