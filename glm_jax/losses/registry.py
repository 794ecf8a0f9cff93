"""The losses that a config can name (`train.loss`); each is three functions.

A module of your own may add one before training starts:

    LOSSES["mine"] = Loss(coefficients, sums, summarize)

or a function that makes one of a config, where the loss has settings of its own.

    batch [B, T] --coefficients--> [B, T], of the whole batch, over hosts, devices and micro-batches
    micro-batch  --sums---------> the weighted loss, whose gradient is taken, and sums by name
    sums, added  --summarize----> metrics: `loss`, and whatever else
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import jax
from jax.sharding import Mesh

from glm_jax.arrays import Array
from glm_jax.batch import Batch
from glm_jax.checks import check_choice
from glm_jax.config import Config
from glm_jax.config.rollouts import LOSSES_OF_ROLLOUTS
from glm_jax.config.training import TrainConfig
from glm_jax.losses import by_objective, choices, pairs, policy
from glm_jax.losses.pretraining import weighted_losses

Sums = dict[str, jax.Array]
# What `Loss.coefficients` returns: [B, T] float32 for pretraining, any tree of arrays for others.
C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Loss(Generic[C]):
    """A loss that training can minimise.

    Attributes:
      coefficients: (config, batch) -> arrays with rows [B, ...]. They are computed from the global
        batch before it is split, so that losses of micro-batches and devices are simply added.
        Denominators belong here. No gradient is taken of them.
      sums: (config, mesh, model, micro_batch, coefficients, dropout_key) -> (loss, sums). `model`
        is a `Transformer` bound to its parameters; `coefficients` are those of the micro-batch's
        rows; dropout_key None means no dropout. `loss` is a scalar with a gradient; `sums` may be
        added over micro-batches.
      summarize: (config, added sums) -> metrics, scalars, with `loss` among them.
      of_targets: `loss` is a mean cross entropy of targets, so that the unigram loss of the same
        targets is its baseline.
    """

    coefficients: Callable[[TrainConfig, Batch], C]
    sums: Callable[
        [TrainConfig, Mesh, by_objective.Model, Batch, C, jax.Array | None],
        tuple[jax.Array, Sums],
    ]
    summarize: Callable[[TrainConfig, Mapping[str, Array]], Sums]
    of_targets: bool = False


def loss_of(config: Config) -> Loss:
    """The loss that `train.loss` names, with its settings.

    Raises:
      UserError: there is no such loss.
    """
    check_choice("train.loss", config.train.loss, sorted(LOSSES))
    found = LOSSES[config.train.loss]
    return found if isinstance(found, Loss) else found(config)


def _of_pairs(config: Config) -> Loss:
    sums = pairs.PairLoss(config.preferences, config.train.loss).sums
    return Loss(pairs.row_weights, sums, pairs.summarize)


def _of_rollouts(config: Config) -> Loss:
    found = policy.PolicyLoss.of(config)
    return Loss(found.coefficients, found.sums, found.summarize)


def _pretraining_coefficients(config: TrainConfig, batch: Batch) -> jax.Array:
    return by_objective.coefficients(batch, config.loss_reduction)


def _pretraining_sums(
    config: TrainConfig,
    mesh: Mesh,
    model: by_objective.Model,
    micro_batch: Batch,
    coefficients: jax.Array,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, Sums]:
    loss, losses = weighted_losses(config, mesh, model, micro_batch, coefficients, dropout_key)
    return loss, by_objective.objective_sums(losses, micro_batch)


def _pretraining_summary(config: TrainConfig, sums: Mapping[str, Array]) -> Sums:
    return by_objective.summarize(sums, config.loss_reduction)


# By the names of `train.loss`.
LOSSES: dict[str, Loss | Callable[[Config], Loss]] = {
    "choices": Loss(choices.row_weights, choices.sums, choices.summarize),
    "pretraining": Loss(
        _pretraining_coefficients, _pretraining_sums, _pretraining_summary, of_targets=True
    ),
    **dict.fromkeys(pairs.OF_PAIRS, _of_pairs),
    **dict.fromkeys(LOSSES_OF_ROLLOUTS, _of_rollouts),
}
