"""Losses and hits of a model on rows of a Batch: of each target, or summed by objective."""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.batch import NUM_OBJECTIVES, Batch
from glm_jax.config.model import ResolvedModel
from glm_jax.losses.at_targets import target_losses
from glm_jax.losses.by_objective import cross_entropy, hidden_of
from glm_jax.losses.scores import SUMS
from glm_jax.models.params import bind
from glm_jax.models.positions import check_positions
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import on_host, with_mesh_of_params

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# Most logits that are computed at once (256 MiB in float32), unless one row has more.
_MOST_LOGITS = 1 << 26


def row_sums(lm: "LanguageModel", batch: Batch) -> dict[str, np.ndarray]:
    """Sums of losses and of hits of each row by objective; few rows at once if V is large.

        one row: targets of objectives [1 1 2], losses 2, 4, 3, the first target is the argmax
            -> {"losses": [0 6 3 0 0 0], "count": [0 2 1 0 0 0], "correct": [0 1 0 0 0 0], ..}

    Args:
      lm: the model.
      batch: numpy, [B, T].

    Returns:
      The sums named by `SUMS`, each float64 [B, 6]; the second index is `Batch.objective`.

    Raises:
      UserError: positions outside the model's tables.
    """
    check_positions(batch, lm.config)
    rows, length = batch.shape
    at_once = min(rows, max(1, _MOST_LOGITS // (length * lm.config.vocab_size)))
    fields = batch.to_dict()
    found = []
    for start in range(0, rows, at_once):
        # The last part repeats some rows of the one before, so that only one shape is compiled.
        first = min(start, rows - at_once)
        part = type(batch)(**{k: value[first : first + at_once] for k, value in fields.items()})
        sums = _row_sums(lm.params, part, config=lm.config)
        found.append(on_host(sums).astype(np.float64)[start - first :])
    joined = np.concatenate(found)
    return {name: joined[:, index] for index, name in enumerate(SUMS)}


def total_sums(lm: "LanguageModel", batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """The sums over all rows of batches, [6] each; padding adds nothing."""
    total = {name: np.zeros(NUM_OBJECTIVES) for name in SUMS}
    for batch in batches:
        for name, values in row_sums(lm, batch).items():
            total[name] += values.sum(axis=0)
    return total


def losses_of_targets(lm: "LanguageModel", batch: Batch) -> np.ndarray:
    """The cross entropy at each slot with a target, in nats; logits are computed nowhere else.

    Args:
      lm: the model.
      batch: numpy, [B, T]; one program is compiled per shape.

    Returns:
      [B, T] float64, 0 where `loss_weights` is 0.

    Raises:
      UserError: positions outside the model's tables.
    """
    check_positions(batch, lm.config)
    found = _losses_of_targets(lm.params, batch, config=lm.config)
    return on_host(found).astype(np.float64)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _losses_of_targets(params: Params, batch: Batch, *, config: ResolvedModel) -> jax.Array:
    model = bind(config, params)
    present = (batch.loss_weights > 0).astype(jnp.float32)
    return target_losses(model.scorer(), hidden_of(model, batch), batch.targets, present)[1]


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _row_sums(params: Params, batch: Batch, *, config: ResolvedModel) -> jax.Array:
    """[B, 5 sums, 6 objectives] float32."""
    model = bind(config, params)
    logits = model.logits(hidden_of(model, batch))
    present = batch.loss_weights > 0
    losses = jnp.where(present, cross_entropy(logits, batch.targets), 0.0)
    correct = present & (jnp.argmax(logits, axis=-1) == batch.targets)
    values = jnp.stack(
        [losses, present, correct, losses * batch.loss_weights, batch.loss_weights * present],
        axis=1,
    )
    objective = 0 if batch.objective is None else batch.objective
    groups = jnp.arange(NUM_OBJECTIVES)
    member = jnp.broadcast_to(objective, batch.tokens.shape)[..., None] == groups
    return jnp.einsum("bst,btg->bsg", values, member.astype(jnp.float32), precision="highest")
