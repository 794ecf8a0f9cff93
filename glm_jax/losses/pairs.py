"""Losses over pairs of answers to one prompt: the chosen one and the rejected one.

A row holds a pair, a segment for each answer, the chosen one first:

    row             | chosen           | rejected         | padding
    attend_start    [0 0 0 0 0          5 5 5 5            0 0]
    loss_weights    [0 0 1 1 1          0 0 1 1            0 0]
    -> of each answer: log-probability, length, and the reward at its last token

Each loss is a function of what a pair has (`PairValues`), by the names of `train.loss`. A row
without two answers counts nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from glm_jax.arrays import Array
from glm_jax.batch import Batch, ScoredBatch
from glm_jax.config.preferences import PreferencesConfig
from glm_jax.config.training import TrainConfig
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import Model, hidden_of
from glm_jax.losses.chunked import chunked_cross_entropy, chunking
from glm_jax.losses.divergence import kl_estimates

Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class PairValues:
    """What a loss is a function of, for B pairs.

    Attributes:
      difference: [B], by how much the policy prefers the chosen answer more than the reference
        does, or by how much the reward model does.
      rewards: [B, 2], of the chosen and of the rejected answer, for watching.
      margin: [B] or 0, what each pair has beside `preferences.margin`.
    """

    difference: jax.Array
    rewards: jax.Array
    margin: jax.Array | float = 0.0


def answers(batch: Batch) -> Bool[jax.Array, "B 2 T"]:
    """Where the tokens of the chosen and of the rejected answer are predicted."""
    present = jnp.asarray(batch.loss_weights) > 0
    is_first = jnp.asarray(batch.attend_start) == 0
    return jnp.stack([present & is_first, present & ~is_first], axis=1)


def of_answers(batch: Batch, values: Float[Array, "B T"]) -> Float[jax.Array, "B 2"]:
    """The sum of values over each answer; nothing of a value elsewhere, not even NaN."""
    return jnp.sum(jnp.where(answers(batch), jnp.asarray(values)[:, None], 0.0), axis=-1)


def at_last_tokens(batch: Batch, values: Float[Array, "B T"]) -> Float[jax.Array, "B 2"]:
    """The value at the last token of each answer, where its end is predicted; 0 without one."""
    where = answers(batch)
    index = jnp.arange(where.shape[-1])
    last = jnp.max(jnp.where(where, index, -1), axis=-1, keepdims=True)
    # A comparison picks the slot: slots may be split over devices.
    return jnp.sum(jnp.where(index == last, jnp.asarray(values)[:, None], 0.0), axis=-1)


def row_weights(config: TrainConfig, batch: Batch) -> Float[jax.Array, " B"]:
    """1 / pairs of the global batch for each row that holds a pair, else 0."""
    del config
    is_pair = answers(batch).any(axis=-1).all(axis=-1).astype(jnp.float32)
    return is_pair / jnp.maximum(is_pair.sum(), 1.0)


def log_probabilities(
    config: TrainConfig,
    mesh: Mesh,
    model: Model,
    batch: Batch,
    dropout_key: jax.Array | None = None,
) -> Float[jax.Array, "B T"]:
    """log p of the target at each slot, with its gradient; chunks as `train.loss_chunk` says."""
    hidden = hidden_of(model, batch, dropout_key)
    chunks = chunking(config, mesh, batch)
    return -chunked_cross_entropy(model.scorer(), hidden, batch.targets, **chunks)


def policy_values(
    settings: PreferencesConfig, batch: Batch, log_probs: Float[Array, "B T"]
) -> PairValues:
    """What DPO and its relatives compare, from the policy's log-probabilities [B, T].

    Args:
      settings: `beta`, `length_normalized` and `reference_free` are read.
      batch: with `reference`, unless the reference is left out.
      log_probs: of the targets.
    """
    ratios = log_probs if settings.reference_free else log_probs - _reference(batch)
    sums = of_answers(batch, ratios)
    if settings.length_normalized:
        sums = sums / jnp.maximum(answers(batch).sum(axis=-1), 1)
    return PairValues(sums[:, 0] - sums[:, 1], settings.beta * sums)


def dpo(settings: PreferencesConfig, pairs: PairValues) -> Float[jax.Array, " B"]:
    """-log sigmoid(beta d - margin), smoothed (arXiv:2305.18290, equation 7)."""
    smoothing = settings.label_smoothing
    score = settings.beta * pairs.difference - settings.margin - pairs.margin
    right, wrong = jax.nn.log_sigmoid(score), jax.nn.log_sigmoid(-score)
    return -(1 - smoothing) * right - smoothing * wrong


def ipo(settings: PreferencesConfig, pairs: PairValues) -> Float[jax.Array, " B"]:
    """(d - 1 / (2 beta))^2 (arXiv:2310.12036, equation 17)."""
    return jnp.square(pairs.difference - 1 / (2 * settings.beta))


def hinge(settings: PreferencesConfig, pairs: PairValues) -> Float[jax.Array, " B"]:
    """max(0, 1 - beta d) (SLiC, arXiv:2305.10425)."""
    return jax.nn.relu(1 - settings.beta * pairs.difference)


def reward(settings: PreferencesConfig, pairs: PairValues) -> Float[jax.Array, " B"]:
    """-log sigmoid(r(chosen) - r(rejected) - margin): Bradley and Terry's likelihood."""
    return -jax.nn.log_sigmoid(pairs.difference - settings.margin - pairs.margin)


# By the names of `train.loss`.
OF_PAIRS: dict[str, Callable[[PreferencesConfig, PairValues], jax.Array]] = {
    "dpo": dpo,
    "hinge": hinge,
    "ipo": ipo,
    "reward": reward,
}


@dataclasses.dataclass(frozen=True)
class PairLoss:
    """A loss over pairs, with its settings.

    Attributes:
      settings: of the loss.
      name: of `OF_PAIRS`.
    """

    settings: PreferencesConfig
    name: str

    def sums(
        self,
        config: TrainConfig,
        mesh: Mesh,
        model: Model,
        batch: Batch,
        weights: Float[Array, " B"],
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Sums]:
        """The weighted loss, and sums over pairs for `summarize`."""
        if self.name == "reward":
            values = model.values(hidden_of(model, batch, dropout_key))
            rewards = at_last_tokens(batch, values)
            pairs, counted = PairValues(rewards[:, 0] - rewards[:, 1], rewards), {}
        else:
            log_probs = log_probabilities(config, mesh, model, batch, dropout_key)
            pairs = policy_values(self.settings, batch, log_probs)
            counted = _of_policy(self.settings, batch, log_probs, weights)
        pairs = dataclasses.replace(pairs, margin=_margins(batch))
        losses = OF_PAIRS[self.name](self.settings, pairs)
        losses = jnp.where(jnp.asarray(weights) > 0, losses, 0.0)
        counted |= _of_pairs(batch, pairs, losses, weights)
        return jnp.sum(losses * weights), jax.lax.stop_gradient(counted)


def _of_pairs(
    batch: Batch, pairs: PairValues, losses: jax.Array, weights: Float[Array, " B"]
) -> Sums:
    """Sums over pairs of what every loss has."""
    is_pair = (jnp.asarray(weights) > 0).astype(jnp.float32)
    lengths = answers(batch).sum(axis=-1).astype(jnp.float32)
    return {
        "pairs": is_pair.sum(),
        "loss": losses.sum(),
        "right": jnp.sum(is_pair * (pairs.difference > 0)),
        **_both("reward", pairs.rewards, is_pair),
        **_both("length", lengths, is_pair),
    }


def _of_policy(
    settings: PreferencesConfig, batch: Batch, log_probs: jax.Array, weights: Float[Array, " B"]
) -> Sums:
    """Sums over pairs of log-probabilities, and over tokens of estimates of the KL divergence.

    They are of the data's answers, not of the policy's own (`kl_estimates`).
    """
    is_pair = (jnp.asarray(weights) > 0).astype(jnp.float32)
    found = _both("log_prob", of_answers(batch, log_probs), is_pair)
    if settings.reference_free:
        return found
    there = answers(batch).any(axis=1) & (is_pair[:, None] > 0)
    ratio = jnp.where(there, log_probs - _reference(batch), 0.0)
    found |= {f"kl/{name}": jnp.sum(value) for name, value in kl_estimates(ratio).items()}
    return found | {"tokens": jnp.sum(there.astype(jnp.float32))}


def _both(name: str, values: jax.Array, is_pair: jax.Array) -> Sums:
    chosen, rejected = jnp.sum(values * is_pair[:, None], axis=0)
    return {f"{name}/chosen": chosen, f"{name}/rejected": rejected}


def _margins(batch: Batch) -> jax.Array | float:
    """[B], of the chosen answer of each pair; 0 where pairs have none."""
    if not isinstance(batch, ScoredBatch) or batch.margins is None:
        return 0.0
    return at_last_tokens(batch, batch.margins)[:, 0]


def _reference(batch: Batch) -> Array:
    if not isinstance(batch, ScoredBatch) or batch.reference is None:
        raise UserError(
            "the rows have no log-probabilities of a reference, which train.loss compares with: "
            "glm_jax.pipeline.references.with_reference computes them; or set "
            "preferences.reference_free=True"
        )
    return batch.reference


def summarize(config: TrainConfig, found: Mapping[str, ArrayLike]) -> Sums:
    """Means over pairs, and over tokens of the KL estimates.

    Returns:
      `loss`; `accuracy`, the share of pairs of which the chosen answer is preferred; `margin`, the
      mean difference of the rewards; `reward/chosen`, `reward/rejected`, and so `length`, in tokens
      with the end, and `log_prob`; `kl/k1`, `kl/k2`, `kl/k3` per token.
    """
    del config
    added = {name: jnp.asarray(value) for name, value in found.items()}
    pairs = jnp.maximum(added.pop("pairs"), 1.0)
    tokens = jnp.maximum(added.pop("tokens", jnp.float32(1)), 1.0)
    added["accuracy"] = added.pop("right")
    added["margin"] = added["reward/chosen"] - added["reward/rejected"]
    return {
        name: value / (tokens if name.startswith("kl/") else pairs) for name, value in added.items()
    }
