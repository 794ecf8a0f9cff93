"""The ways to compute the loss of a part of a batch, by the names of `train.cross_entropy`.

plain                  all logits at once, B x T x V float32, 3 products with the output matrix
chunked                those of a chunk at once, computed again backward, 4 products
gradient_in_forward    those of a chunk, only where something is predicted, 3 products; keeps
                       the gradient of the output matrix in float32, V x D, meanwhile. Without
                       dropout the last layer's output and feed-forward part are computed there too,
                       and their gradients kept
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config.training import TrainConfig
from glm_jax.losses.at_targets import target_losses
from glm_jax.losses.by_objective import cross_entropy, hidden_of, unfinished_of
from glm_jax.losses.chunked import chunked_losses
from glm_jax.models.transformer import uses_scan
from glm_jax.sharding.mesh import place_groups, row_groups


def weighted_losses(
    config: TrainConfig,
    mesh: Mesh,
    model: Any,
    part: Batch,
    scale: jax.Array,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """sum(scale * cross entropy), and the cross entropy at each place with a scale above 0.

    Args:
      config: `cross_entropy` and `loss_chunk`, not None.
      mesh: that splits the part.
      model: a `Transformer` bound to its parameters.
      part: [B, T].
      scale: [B, T] float32, see `glm_jax.losses.by_objective.coefficients`; not differentiated.
      dropout_key: None for no dropout.

    Returns:
      The sum, which has a gradient, and [B, T] float32 losses, which have none.
    """
    chunk = config.loss_chunk or part.tokens.size
    if config.cross_entropy == "gradient_in_forward":
        # Whatever a place does alone is wanted where there is a target, the last layer's part too;
        # but dropout draws for all places of a row together.
        early = dropout_key is None and not uses_scan(model.config)
        hidden = unfinished_of(model, part) if early else hidden_of(model, part, dropout_key)
        logits = model.finisher() if early else model.scorer()
        groups = row_groups(mesh)
        return target_losses(logits, hidden, part.targets, scale, groups=groups, piece=chunk)
    hidden, logits = hidden_of(model, part, dropout_key), model.scorer()
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
