"""Makes the batches of a cycle: answers, their rewards, their scores, their advantages.

    2 prompts, group_size 4, batches 2
        answers    a b c d  e f g h       decoded together (`glm_jax.generation.rollouts`)
        rewards    1 0 0 1  0 0 0 0
        batches    a b c d | e f g h      a row each, groups stay together

All is a function of the parameters at the cycle's first step, the seed, that step and the prompts.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from glm_jax.batch import Batch, RolloutBatch
from glm_jax.config import Config
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.data.examples.example import rows_of
from glm_jax.generation.rollouts import RolledOut
from glm_jax.models.trees import Params
from glm_jax.training.rollouts import advantages
from glm_jax.training.rollouts.answering import Answered, Answering
from glm_jax.training.rollouts.rows import answer_example, at_answers, in_parts, of_answers
from glm_jax.training.rollouts.scoring import Scorer, Scores

if TYPE_CHECKING:
    from glm_jax.data.examples.prompt_rows import PromptBatch


@dataclasses.dataclass(frozen=True)
class Made:
    """The batches of a cycle.

    Attributes:
      batches: numpy, [B, T] each, the same on all processes.
      metrics: of the cycle, by name.
      statistics: counts of each batch, as of `glm_jax.training.feed.Fed`.
    """

    batches: list[RolloutBatch]
    metrics: Mapping[str, float]
    statistics: list[dict[str, int]]


class Making:
    """Makes the batches of a cycle from its prompts."""

    def __init__(self, config: Config, answering: Answering, scorer: Scorer):
        """Args:
        config: of the run.
        answering: asks the policy.
        scorer: scores its answers.
        """
        self._config, self._answering, self._scorer = config, answering, scorer

    def __call__(
        self, params: Params, reference: Params | None, prompts: "PromptBatch", step: int
    ) -> Made:
        """Makes the batches; all processes call this with the same.

        Args:
          params: of the policy.
          reference: parameters of the reference, or None.
          prompts: of the cycle.
          step: steps that were done before it.
        """
        copies = self._config.rollouts.group_size
        answered = self._answering(params, prompts, "train", step, copies, greedy=False)
        rows = self._rows(prompts, answered.answers)
        scores = self._scorer(params, reference, rows)
        sampled = at_answers(rows, _padded([one.log_probs for one in answered.answers]))
        there = rows.loss_weights > 0
        difference = np.abs(sampled - scores.log_probs)[there]
        whole = self._with_advantages(rows, scores, answered)
        if self._config.rollouts.truncated == "mask":
            whole = _masked(whole, answered.answers)
        batches = in_parts(whole, self._config.data.batch_size)
        groups = answered.rewards.reshape(-1, copies)
        metrics = answered.metrics() | {
            "reward/groups_alike": float((groups.max(axis=1) == groups.min(axis=1)).mean()),
            "rollouts/log_prob_error": float(difference.max()),
        }
        return Made(batches, metrics, [_counts(batch) for batch in batches])

    def _rows(self, prompts: "PromptBatch", answers: Sequence[RolledOut]) -> Batch:
        copies, fills = self._config.rollouts.group_size, self._config.model.fills_blanks
        special = self._answering.special
        examples = [
            answer_example(prompts.ids[row // copies], answer.ids, special, fills)
            for row, answer in enumerate(answers)
        ]
        return rows_of(examples, self._config.data.sequence_length, special.pad)

    def _with_advantages(self, rows: Batch, scores: Scores, answered: Answered) -> RolloutBatch:
        scaling = self._config.policy.scaling(self._config.train.loss)
        made = functools.partial(
            RolloutBatch, **rows.to_dict(), reference=scores.reference, old=scores.log_probs
        )
        if scores.values is None:
            groups = answered.rewards.reshape(-1, self._config.rollouts.group_size)
            found = advantages.of_groups(groups, scaling).reshape(-1)
            each = np.where(rows.loss_weights > 0, found[:, None], 0.0).astype(np.float32)
            return made(advantages=each)
        policy, there = self._config.policy, rows.loss_weights > 0
        lengths = np.count_nonzero(there, axis=1)
        values = of_answers(rows, scores.values)
        rewards = np.zeros_like(values)
        if policy.kl_beta and policy.kl_in == "reward":
            assert scores.reference is not None  # policy.has_reference
            rewards -= policy.kl_beta * of_answers(rows, scores.log_probs - scores.reference)
        at_end = np.arange(rewards.shape[1]) == lengths.reshape(-1, 1) - 1
        rewards += at_end * answered.rewards.reshape(-1, 1)
        found = advantages.generalized(rewards, values, lengths, policy.discount, policy.gae_lambda)
        inside = np.arange(values.shape[1]) < lengths.reshape(-1, 1)
        returns = np.where(inside, found + values, 0.0)
        if scaling == "batch":
            found = advantages.whitened(found, inside)
        return made(
            advantages=at_answers(rows, found),
            old_values=scores.values,
            returns=at_answers(rows, returns),
        )


def _padded(values: Sequence[np.ndarray]) -> Float[np.ndarray, "rows tokens"]:
    """Values of different lengths, padded with 0."""
    found = np.zeros((len(values), max(map(len, values))))
    for row, one in zip(found, values, strict=True):
        row[: len(one)] = one
    return found


def _masked(batch: RolloutBatch, answers: Sequence[RolledOut]) -> RolloutBatch:
    """The same, where answers without an end do not count in the loss."""
    complete = np.array([one.complete for one in answers])
    weights = np.where(complete[:, None], batch.loss_weights, 0.0).astype(np.float32)
    return dataclasses.replace(batch, loss_weights=weights)


def _counts(batch: RolloutBatch) -> dict[str, int]:
    """Counts by `Corruptor.statistics_names`."""
    used = int((batch.attend_end > batch.attend_start).sum())
    return dict.fromkeys(Corruptor.statistics_names, 0) | {
        "rows": len(batch.tokens),
        "places_used": used,
        "source_tokens": used,
        "targets": int((batch.loss_weights > 0).sum()),
    }
