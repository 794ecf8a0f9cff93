"""The ways to compute the loss of a part of a batch, by the names of `train.cross_entropy`.

plain                  all logits at once, B x T x V float32, 3 products with the output matrix
chunked                those of a chunk at once, computed again backward, 4 products
gradient_in_forward    those of a chunk, only where something is predicted, 3 products; keeps
                       the gradient of the output matrix in float32, V x D, meanwhile
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config import TrainConfig
from glm_jax.sharding import place_groups, row_groups
from glm_jax.training.chunked_losses import chunked_losses
from glm_jax.training.objective import cross_entropy
from glm_jax.training.target_losses import target_losses


def weighted_losses(
    config: TrainConfig, mesh: Mesh, model: Any, hidden: jax.Array, part: Batch, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """sum(scale * cross entropy), and the cross entropy at each place with a scale above 0.

    Args:
      config: `cross_entropy` and `loss_chunk`, not None.
      mesh: that splits the part.
      model: a `Transformer` bound to its parameters.
      hidden: [B, T, D], from the model.
      part: [B, T].
      scale: [B, T] float32, see `glm_jax.training.objective.coefficients`; not differentiated.

    Returns:
      The sum, which has a gradient, and [B, T] float32 losses, which have none.
    """
    logits, chunk = model.scorer(), config.loss_chunk or part.tokens.size
    if config.cross_entropy == "gradient_in_forward":
        groups = row_groups(mesh)
        return target_losses(logits, hidden, part.targets, scale, groups=groups, piece=chunk)
    if config.cross_entropy == "chunked":
        return chunked_losses(
            logits,
            hidden,
            part.targets,
            scale,
            row_groups=row_groups(mesh),
            place_groups=place_groups(mesh),
            chunk=chunk,
        )
    losses = cross_entropy(logits(hidden), part.targets)
    return jnp.sum(losses * scale), jax.lax.stop_gradient(losses)
