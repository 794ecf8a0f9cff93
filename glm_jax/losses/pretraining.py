"""The ways to compute the loss of a micro-batch, by the names of `train.cross_entropy`.

plain                  All logits at once, B x T x V float32: 3 products with the LM head.
chunked                The logits of one chunk at a time, recomputed backward: 4 products.
gradient_in_forward    The logits of one chunk at a time, only at targets: 3 products. Holds the
                       gradient of the LM head, V x D float32, from forward to backward. Without
                       dropout the last layer's attention output and feed-forward are computed at
                       targets only too, and their gradients are held as well.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Float

from glm_jax.arrays import Array
from glm_jax.batch import Batch
from glm_jax.config.training import TrainConfig
from glm_jax.losses.at_targets import target_losses
from glm_jax.losses.by_objective import Model, cross_entropy, hidden_of, unfinished_of
from glm_jax.losses.chunked import chunked_losses
from glm_jax.models.choices import uses_scan
from glm_jax.sharding.mesh import row_groups, slot_groups


def weighted_losses(
    config: TrainConfig,
    mesh: Mesh,
    model: Model,
    micro_batch: Batch,
    scale: Float[Array, "B T"],
    dropout_key: jax.Array | None = None,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, "B T"]]:
    """sum(scale * cross entropy), and the cross entropy at each slot with a scale above 0.

    Args:
      config: its `cross_entropy` and `loss_chunk` are read; neither may be None.
      mesh: over which the micro-batch is sharded.
      model: a `Transformer` bound to its parameters.
      micro_batch: [B, T].
      scale: [B, T] float32, see `glm_jax.losses.by_objective.coefficients`; not differentiated.
      dropout_key: None for no dropout.

    Returns:
      The sum, which has a gradient, and [B, T] float32 losses, which have none.
    """
    chunk = config.loss_chunk or micro_batch.tokens.size
    targets = micro_batch.targets
    if config.cross_entropy == "gradient_in_forward":
        # After the last attention each slot is computed alone, so targets suffice. Dropout prevents
        # that, since it draws for all slots of a row together.
        early = dropout_key is None and not uses_scan(model.config.compute)
        if early:
            hidden, logits = unfinished_of(model, micro_batch), model.finisher()
        else:
            hidden, logits = hidden_of(model, micro_batch, dropout_key), model.scorer()
        return target_losses(logits, hidden, targets, scale, groups=row_groups(mesh), chunk=chunk)
    hidden, logits = hidden_of(model, micro_batch, dropout_key), model.scorer()
    if config.cross_entropy == "chunked":
        return chunked_losses(
            logits,
            hidden,
            targets,
            scale,
            row_groups=row_groups(mesh),
            slot_groups=slot_groups(mesh),
            chunk=chunk,
        )
    losses = cross_entropy(logits(hidden), targets)
    return jnp.sum(losses * scale), jax.lax.stop_gradient(losses)
