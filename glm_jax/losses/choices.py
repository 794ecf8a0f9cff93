"""The contrastive loss of clozes: the right candidate against the others, by their likelihoods.

A row holds one question, a segment for each candidate, the right one first. With s_j the sum of
log-probabilities of candidate j's targets, the loss is the cross entropy over candidates,

    row        | right          | wrong          | padding
    s          -2.0             -3.0
    loss       log(exp(-2.0) + exp(-3.0)) + 2.0 = 0.313

as published for SuperGLUE (GLM, arXiv:2103.10360, section 2.3; github.com/THUDM/GLM,
tasks/superglue, without its length penalty). A row with fewer than two segments counts nothing.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Float

from glm_jax.arrays import Array
from glm_jax.batch import Batch
from glm_jax.config.training import TrainConfig
from glm_jax.losses.by_objective import Model, token_losses


def segment_sums(batch: Batch, values: Float[Array, "B T"]) -> Float[jax.Array, "B T"]:
    """The sum over each segment of a row, at the segment's first slot; 0 elsewhere.

    attend_start [0 0 0 3 3 0], values [1 2 0 4 1 0]  ->  [3 0 0 5 0 0]     the last is padding
    """
    length = batch.tokens.shape[1]

    def row(values: jax.Array, start: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, start, length)

    return jax.vmap(row)(jnp.asarray(values), jnp.asarray(batch.attend_start))


def row_weights(config: TrainConfig, batch: Batch) -> Float[jax.Array, " B"]:
    """1 / questions of the global batch for each row that has a question, else 0."""
    del config
    asked = (_candidates(batch).sum(axis=1) > 1).astype(jnp.float32)
    return asked / jnp.maximum(asked.sum(), 1.0)


def sums(
    config: TrainConfig,
    mesh: Mesh,
    model: Model,
    micro_batch: Batch,
    weights: Float[Array, " B"],
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted loss, and sums over questions: `choices`, `right` and `questions`.

    The logits of all slots of a micro-batch are in memory at once.
    """
    del config, mesh
    return over_candidates(token_losses(model, micro_batch, dropout_key), micro_batch, weights)


def over_candidates(
    losses: Float[Array, "B T"], batch: Batch, weights: Float[Array, " B"]
) -> tuple[Float[jax.Array, ""], dict[str, jax.Array]]:
    """`sums` from the cross entropies at all slots, [B, T]."""
    present = jnp.asarray(batch.loss_weights) > 0
    totals = segment_sums(batch, jnp.where(present, losses, 0.0))
    asked = jnp.asarray(weights) > 0
    # Where nothing is asked all scores would be -inf, whose gradient is NaN.
    scores = jnp.where(_candidates(batch), -totals, -jnp.inf)
    scores = jnp.where(asked[:, None], scores, 0.0)
    found = jax.nn.logsumexp(scores, axis=1) - scores[:, 0]
    right = asked & (jnp.argmax(scores, axis=1) == 0)
    counted = {
        "choices": jnp.sum(jnp.where(asked, found, 0.0)),
        "right": jnp.sum(right.astype(jnp.float32)),
        "questions": jnp.sum(asked.astype(jnp.float32)),
    }
    return jnp.sum(found * weights), jax.lax.stop_gradient(counted)


def summarize(config: TrainConfig, found: Mapping[str, ArrayLike]) -> dict[str, jax.Array]:
    """`loss`, the mean over questions, and `accuracy`, the share whose right candidate is best."""
    del config
    sums = {name: jnp.asarray(value) for name, value in found.items()}
    questions = jnp.maximum(sums["questions"], 1.0)
    return {"loss": sums["choices"] / questions, "accuracy": sums["right"] / questions}


def _candidates(batch: Batch) -> jax.Array:
    """[B, T] bool: the first slots of segments that have targets."""
    present = (jnp.asarray(batch.loss_weights) > 0).astype(jnp.float32)
    return segment_sums(batch, present) > 0
