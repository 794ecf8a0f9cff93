"""Token cross entropy, two ways to average it over a batch, and losses by objective.

Two rows of three slots; a slot has a target if its weight is not 0. "token_mean":

    objective     [[span, span, 0], [document, 0, 0]]
    loss_weights  [[1,    1,    0], [2,        0, 0]]
    coefficients  [[1/4,  1/4,  0], [2/4,      0, 0]]      loss = sum(coefficients * cross entropy)

"objective_mean" is L_span + 2 L_document, each the mean over its own targets:

    coefficients  [[1/2,  1/2,  0], [2/1,      0, 0]]

Coefficients are computed from the global batch before it is split. The sum over hosts, devices and
micro-batches is then the loss of the global batch.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from glm_jax.arrays import Array
from glm_jax.batch import NUM_OBJECTIVES, OBJECTIVES, Batch
from glm_jax.config.model import ResolvedModel

REDUCTIONS = ("token_mean", "objective_mean")


@runtime_checkable
class Model(Protocol):
    """What losses need of a `Transformer` that is bound to its parameters."""

    config: ResolvedModel

    def __call__(
        self,
        tokens: Array,
        positions: Array,
        block_positions: Array,
        attend_start: Array,
        attend_end: Array,
        *,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array: ...

    def unfinished(
        self,
        tokens: Array,
        positions: Array,
        block_positions: Array,
        attend_start: Array,
        attend_end: Array,
    ) -> jax.Array: ...

    def finisher(self) -> Callable[[jax.Array], jax.Array]: ...

    def scorer(self) -> Callable[[jax.Array], jax.Array]: ...

    def logits(self, hidden: jax.Array) -> jax.Array: ...

    def values(self, hidden: jax.Array) -> jax.Array: ...


def cross_entropy(
    logits: Float[Array, "*slots V"], targets: Int[Array, "*slots"]
) -> Float[jax.Array, "*slots"]:
    """-log softmax(logits)[target] in float32.

    Args:
      logits: [..., V]; cast to float32.
      targets: [...] int32.

    Returns:
      [...] float32, in nats.
    """
    logits = logits.astype(jnp.float32)
    # A comparison picks the target; the gradient of a gather would be a scatter over V.
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    picked = jnp.sum(jnp.where(ids == targets[..., None], logits, 0.0), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - picked


def token_losses(
    model: Model, batch: Batch, dropout_key: jax.Array | None = None
) -> Float[jax.Array, "B T"]:
    """Cross entropy at every slot of a batch, including padding.

    Args:
      model: a `Transformer` bound to its parameters.
      batch: [B, T].
      dropout_key: None for no dropout.

    Returns:
      [B, T] float32.
    """
    return cross_entropy(model.logits(hidden_of(model, batch, dropout_key)), batch.targets)


def hidden_of(
    model: Model, batch: Batch, dropout_key: jax.Array | None = None
) -> Float[jax.Array, "B T D"]:
    """The final hidden states [B, T, D], the input of the LM head; arguments as `token_losses`."""
    return model(*_inputs(batch), dropout_key=dropout_key)


def unfinished_of(model: Model, batch: Batch) -> Float[jax.Array, "B T D_NH"]:
    """`Transformer.unfinished` of a batch, [B, T, D + N H]; without dropout."""
    return model.unfinished(*_inputs(batch))


def _inputs(batch: Batch) -> tuple[Array, Array, Array, Array, Array]:
    """The inputs of a `Transformer` for whole rows, in the order of its arguments."""
    return (
        batch.tokens,
        batch.positions,
        batch.block_positions,
        batch.attend_start,
        batch.attend_end,
    )


def coefficients(batch: Batch, reduction: str) -> Float[jax.Array, "B T"]:
    """The factor of each slot's cross entropy in the loss of the global batch.

    Args:
      batch: the global batch, [B, T].
      reduction: "token_mean": w / sum(w). "objective_mean": w / n, where n is the number of targets
        of the slot's own objective. The loss is then the sum over the objectives present of
        weight * mean over the objective's own targets (GLM, arXiv:2103.10360, section 2.1).

    Returns:
      [B, T] float32; all 0 for a batch without targets, whose loss is 0.

    Raises:
      ValueError: there is no such reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"loss_reduction must be one of {REDUCTIONS}; got {reduction!r}")
    weights = batch.loss_weights.astype(jnp.float32)
    if reduction == "token_mean":
        total = jnp.sum(weights)
        return weights / jnp.where(total > 0, total, 1.0)
    counts = jnp.maximum(_group_sums(batch, (weights > 0).astype(jnp.float32)), 1.0)
    return weights / counts[_groups(batch)]


def objective_sums(
    losses: Float[Array, "B T"], batch: Batch
) -> dict[str, Float[jax.Array, " objectives"]]:
    """Sums from which `summarize` takes losses by objective; those of several batches may be added.

    Args:
      losses: [B, T] cross entropies.
      batch: [B, T].

    Returns:
      Four arrays [6] float32, indexed by the values of `Batch.objective`: `losses` and `count` over
      the targets, `weighted_losses` and `weights` with `loss_weights` multiplied in.
    """
    present = batch.loss_weights > 0
    weights = batch.loss_weights.astype(jnp.float32)
    # A slot without a target must add nothing, whatever its loss (0 * inf is not 0).
    losses = jnp.where(present, losses, 0.0)
    return {
        "losses": _group_sums(batch, losses),
        "count": _group_sums(batch, present.astype(jnp.float32)),
        "weighted_losses": _group_sums(batch, losses * weights),
        "weights": _group_sums(batch, weights),
    }


def summarize(
    sums: Mapping[str, Float[Array, " objectives"]], reduction: str
) -> dict[str, Float[jax.Array, ""]]:
    """The loss, and the mean cross entropy of each objective.

    Args:
      sums: from `objective_sums`, added up over any number of batches.
      reduction: of `loss`, see `coefficients`.

    Returns:
      Scalars: `loss`, which is 0 if there is no target at all, and `loss/NAME` for each of
      `OBJECTIVES`, which is NaN for an objective without targets.
    """
    present = sums["count"] > 0
    if reduction == "token_mean":
        total = sums["weights"].sum()
        loss = sums["weighted_losses"].sum() / jnp.where(total > 0, total, 1.0)
    else:
        loss = (sums["weighted_losses"] / jnp.where(present, sums["count"], 1.0)).sum()
    means = sums["losses"] / jnp.where(present, sums["count"], jnp.nan)
    return {"loss": loss} | {f"loss/{name}": means[group] for name, group in OBJECTIVES.items()}


def _groups(batch: Batch) -> Array:
    """`batch.objective`, [B, T] int32; 0 for a batch without it."""
    if batch.objective is None:
        return jnp.zeros(batch.shape, jnp.int32)
    return batch.objective


def _group_sums(batch: Batch, values: Array) -> jax.Array:
    """Sums of `values` [B, T] by objective, [6]."""
    member = _groups(batch)[None] == jnp.arange(NUM_OBJECTIVES)[:, None, None]
    return jnp.sum(jnp.where(member, values, 0.0), axis=(1, 2))
