"""GRPO and PPO: losses over answers that the policy gave, token by token.

A row holds a prompt and one answer; at each slot whose target is learnt there are

    old          log p of the target by the policy that answered
    advantages   what the answer, or the token, was better than expected
    reference    log p by the model that the run began with, or nothing
    old_values, returns     of a value head, or nothing

    ratio = exp(log p - old)      loss = - min(ratio A, clip(ratio) A) + ..

(`glm_jax.config.policy`). The first step on an answer has the ratio 1 everywhere.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from glm_jax.arrays import Array
from glm_jax.batch import Batch, RolloutBatch
from glm_jax.config import Config
from glm_jax.config.policy import PolicyConfig
from glm_jax.config.training import TrainConfig
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import Model, hidden_of
from glm_jax.losses.chunked import chunked_entropy, chunking
from glm_jax.losses.divergence import kl_estimates
from glm_jax.sharding.mesh import slot_groups

Sums = dict[str, jax.Array]


def learnt(batch: Batch) -> Bool[jax.Array, "B T"]:
    """Where the tokens of answers are predicted."""
    return jnp.asarray(batch.loss_weights) > 0


def clipped(
    settings: PolicyConfig, ratio: Float[jax.Array, "..."], advantages: Float[Array, "..."]
) -> Float[jax.Array, "..."]:
    """-min(w A, clip(w, 1 - clip_low, 1 + clip_high) A) (arXiv:1707.06347, equation 7)."""
    within = jnp.clip(ratio, 1 - settings.clip_low, 1 + settings.clip_high)
    return -jnp.minimum(ratio * advantages, within * advantages)


def value_error(
    settings: PolicyConfig,
    values: Float[jax.Array, "..."],
    old: Float[Array, "..."],
    returns: Float[Array, "..."],
) -> Float[jax.Array, "..."]:
    """Half the squared error, of the value or of the value within `value_clip` of the old one,
    whichever is larger (as in OpenAI's and TRL's PPO)."""
    error = jnp.square(values - returns)
    if settings.value_clip is not None:
        within = jnp.clip(values, old - settings.value_clip, old + settings.value_clip)
        error = jnp.maximum(error, jnp.square(within - returns))
    return error / 2


@dataclasses.dataclass(frozen=True)
class PolicyLoss:
    """A loss over rollouts, with its settings.

    Attributes:
      settings: of the loss.
      temperature: that the answers were drawn at.
      longest: `rollouts.max_new_tokens`.
      kl_weight: of the divergence from the reference in the loss.
      has_values: the model has a value head that is trained (PPO).
    """

    settings: PolicyConfig
    temperature: float
    longest: int
    kl_weight: float
    has_values: bool

    @classmethod
    def of(cls, config: Config) -> "PolicyLoss":
        """The loss of a config."""
        return cls(
            config.policy,
            config.rollouts.temperature,
            config.rollouts.max_new_tokens,
            config.policy.kl_weight(config.train.loss),
            config.has_values,
        )

    def coefficients(self, config: TrainConfig, batch: Batch) -> Float[jax.Array, "B T"]:
        """The weight of each token's loss, by `policy.loss_per`."""
        del config
        tokens = learnt(batch).astype(jnp.float32)
        if self.settings.loss_per == "token":
            return tokens / jnp.maximum(tokens.sum(), 1.0)
        # An answer whose tokens do not count (rollouts.truncated="mask") is an answer.
        rows = (jnp.asarray(batch.attend_end) > jnp.asarray(batch.attend_start)).any(axis=-1)
        per_row = tokens / jnp.maximum(rows.sum(), 1)
        if self.settings.loss_per == "longest":
            return per_row / self.longest
        return per_row / jnp.maximum(tokens.sum(axis=-1, keepdims=True), 1.0)

    def sums(
        self,
        config: TrainConfig,
        mesh: Mesh,
        model: Model,
        batch: Batch,
        weights: Float[Array, "B T"],
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Sums]:
        """The weighted loss, and sums over tokens for `summarize`."""
        batch = _checked(batch)
        there = learnt(batch)
        hidden = hidden_of(model, batch, dropout_key)
        log_probs, entropy = log_probs_and_entropy(
            config,
            mesh,
            model,
            batch,
            hidden,
            self.temperature,
            self.longest,
            differentiable=self.settings.entropy_bonus > 0,
        )
        ratio = jnp.exp(jnp.where(there, log_probs - batch.old, 0.0))
        losses = {"policy": clipped(self.settings, ratio, batch.advantages)}
        if batch.reference is not None:
            estimates = kl_estimates(jnp.where(there, log_probs - batch.reference, 0.0))
        else:
            estimates = {}
        if self.kl_weight:
            divergence = estimates[self.settings.kl_estimator]
            by = ratio if self.settings.kl_by_ratio else 1.0
            losses["kl"] = self.kl_weight * by * divergence
        if self.settings.entropy_bonus:
            losses["entropy"] = -self.settings.entropy_bonus * entropy
        if self.has_values:
            error = value_error(
                self.settings, model.values(hidden), batch.old_values, batch.returns
            )
            losses["value"] = self.settings.value_coefficient * error
        weighted = {
            name: jnp.sum(jnp.where(there, value, 0.0) * weights) for name, value in losses.items()
        }
        watched = {
            "entropy": entropy,
            "ratio": ratio,
            "clipped/low": (ratio < 1 - self.settings.clip_low) & (batch.advantages < 0),
            "clipped/high": (ratio > 1 + self.settings.clip_high) & (batch.advantages > 0),
            "kl/old": kl_estimates(jnp.log(ratio))["k3"],
            **{f"kl/{name}": value for name, value in estimates.items()},
        }
        counted = {
            name: jnp.sum(jnp.where(there, value, 0.0).astype(jnp.float32))
            for name, value in watched.items()
        }
        counted |= {f"loss/{name}": value for name, value in weighted.items()}
        counted["tokens"] = jnp.sum(there.astype(jnp.float32))
        return sum(weighted.values(), jnp.float32(0)), jax.lax.stop_gradient(counted)

    def summarize(self, config: TrainConfig, found: Mapping[str, ArrayLike]) -> Sums:
        """The losses, and means over tokens.

        Returns:
          `loss` and its parts `loss/policy`, `loss/kl`, `loss/entropy`, `loss/value`; `entropy` in
          nats; `ratio`; `clipped/low`, `clipped/high`: the share of tokens whose gradient the clip
          has taken; `kl/old` from the policy that answered; `kl/k1`, `kl/k2`, `kl/k3` from the
          reference.
        """
        del config
        added = {name: jnp.asarray(value) for name, value in found.items()}
        tokens = jnp.maximum(added.pop("tokens"), 1.0)
        parts = {name: value for name, value in added.items() if name.startswith("loss/")}
        means = {name: value / tokens for name, value in added.items() if name not in parts}
        return {"loss": sum(parts.values(), jnp.float32(0)), **parts, **means}


def log_probs_and_entropy(
    config: TrainConfig,
    mesh: Mesh,
    model: Model,
    batch: Batch,
    hidden: Float[jax.Array, "B T D"],
    temperature: float,
    longest: int,
    *,
    differentiable: bool = False,
) -> tuple[Float[jax.Array, "B T"], Float[jax.Array, "B T"]]:
    """log p of the target and the entropy where one is learnt, of the policy at a temperature.

    Answers are short beside their prompts, so logits are computed for `longest` slots of a row:

        learnt   0 0 0 1 1 0      longest 3      slots 3 4 0 have logits; of 3 and 4 they are kept

    Args:
      config: `loss_chunk` and `cross_entropy` are read.
      mesh: of the batch.
      model: bound to its parameters.
      batch: [B, T].
      hidden: of the model for this batch.
      temperature: divides the logits.
      longest: M, the most slots of a row that are learnt.
      differentiable: the entropy has a gradient too.

    Returns:
      [B, T] each; where nothing is learnt, what is there means nothing.
    """
    score, targets, order = model.scorer(), jnp.asarray(batch.targets), None
    # Slots that are split over devices stay where they are.
    if longest < targets.shape[1] and slot_groups(mesh) == 1:
        order = jnp.argsort(~learnt(batch), axis=1, stable=True)[:, :longest]
        hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
        targets = jnp.take_along_axis(targets, order, axis=1)

    def logits(hidden: jax.Array) -> jax.Array:
        return score(hidden).astype(jnp.float32) / temperature

    chunks = chunking(config, mesh, batch)
    losses, entropy = chunked_entropy(
        logits, hidden, targets, **chunks, differentiable=differentiable
    )
    if order is None:
        return -losses, entropy
    rows, empty = jnp.arange(len(order))[:, None], jnp.zeros(batch.targets.shape, jnp.float32)
    return empty.at[rows, order].set(-losses), empty.at[rows, order].set(entropy)


def _checked(batch: Batch) -> RolloutBatch:
    if not isinstance(batch, RolloutBatch) or batch.old is None:
        raise UserError(
            "the rows are no rollouts, which this train.loss is over; training makes them "
            "(glm_jax.training.rollouts)"
        )
    return batch
