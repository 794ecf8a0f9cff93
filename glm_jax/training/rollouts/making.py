"""Makes the batches of a cycle: answers, their rewards, their scores, their advantages.

    2 prompts, group_size 4, batches 2
        answers    a b c d  e f g h       decoded together (`glm_jax.generation.rollouts`)
        rewards    1 0 0 1  0 0 0 0       each process asks for its share
        batches    a b c d | e f g h      a row each, groups stay together

All is a function of the parameters at the cycle's first step, the seed, that step and the prompts.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from glm_jax.batch import Batch, RolloutBatch
from glm_jax.config import Config
from glm_jax.corruption.corruptor import Corruptor
from glm_jax.data.examples.prompts import PromptBatch, Question, blank_of, read_question
from glm_jax.generation.cache import bucket
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.rollouts import RolledOut, roll_out
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Room
from glm_jax.json_files import JsonObject
from glm_jax.models.seeds import fold_name, key_of
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import row_groups
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.distributed import on_all, share
from glm_jax.training.rollouts import advantages
from glm_jax.training.rollouts.rewarding import Asked, Rewards
from glm_jax.training.rollouts.rows import answer_example, at_answers, of_answers, rows_of
from glm_jax.training.rollouts.scoring import Scorer, Scores


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to prompts and their rewards, those to one prompt side by side.

    Attributes:
      asked: of each answer.
      answers: N of them.
      rewards: [N] float64.
      failed: number of answers for which the function gave no reward.
    """

    asked: list[Asked]
    answers: list[RolledOut]
    rewards: Float[np.ndarray, " N"]
    failed: int

    def metrics(self) -> dict[str, float]:
        """`reward`, its least, largest and deviation, `length/answer` in tokens with the end, and
        the shares `truncated` and `reward/failed`."""
        lengths = np.array([len(one.ids) for one in self.answers])
        complete = np.array([one.complete for one in self.answers])
        return {
            "reward": float(self.rewards.mean()),
            "reward/deviation": float(self.rewards.std()),
            "reward/least": float(self.rewards.min()),
            "reward/largest": float(self.rewards.max()),
            "reward/failed": self.failed / len(self.answers),
            "length/answer": float(lengths.mean()),
            "length/longest": float(lengths.max()),
            "truncated": float(1 - complete.mean()),
        }


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


class Answering:
    """Asks a policy, and asks for rewards."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        tokenizer: Tokenizer,
        records: Mapping[str, Sequence[JsonObject]],
        rewards: Rewards,
    ):
        """Args:
        config: of the run.
        mesh: of the parameters.
        tokenizer: of the data.
        records: the objects of the files by split, in the order of the prompts.
        rewards: gives rewards; each process its share, but of a reward model.
        """
        self._config, self._tokenizer, self._records = config, tokenizer, records
        self._rewards, self._settings = rewards, config.rollouts
        self._model, self._groups = config.resolved_model, row_groups(mesh)
        special = self.special = tokenizer.special
        ends = {special.eos, *tokenizer.chat_end_ids}
        if self._model.fills_blanks:
            ends.add(special.end)
        self._limits = Limits(sorted(ends), self._settings.max_new_tokens)
        # Of every cycle the same sizes, so that nothing is compiled again.
        self._room = Room(
            bucket(config.data.sequence_length + 1),
            bucket(self._settings.max_new_tokens),
            1,
            len(self._limits.end_ids),
        )

    def __call__(
        self, params: Params, prompts: PromptBatch, split: str, step: int, copies: int, greedy: bool
    ) -> Answered:
        """Answers prompts.

        Args:
          params: of the policy; all processes call this with the same prompts.
          prompts: of a split.
          split: its name.
          step: steps that were done before.
          copies: answers to each prompt.
          greedy: the most probable ids, instead of drawing them.
        """
        how = Sampling() if greedy else Sampling(self._settings.temperature)
        key = fold_name(key_of(self._config.train.seed), "rollouts")
        answers = roll_out(
            Engine(self._model, params, tiles=False, shared=True),
            [self._prompt(ids, how) for ids in prompts.ids],
            copies,
            jax.random.fold_in(key, step),
            self._room,
            self._slots(len(prompts.ids) * copies),
        )
        numbers = np.repeat(prompts.numbers, copies)
        asked = [
            self._asked(self._records[split][number], answer)
            for number, answer in zip(numbers.tolist(), answers, strict=True)
        ]
        found = self._rewarded(asked, answers)
        failed = sum(one is None for one in found)
        instead = self._settings.failed_reward
        given = [instead if one is None else one for one in found]
        return Answered(asked, answers, np.array(given, np.float64), failed)

    def _slots(self, rows: int) -> int:
        """Rows to decode at once: a multiple of the devices that they are split over."""
        asked = min(self._settings.slots or rows, rows)
        return -(-asked // self._groups) * self._groups

    def _prompt(self, ids: list[int], how: Sampling) -> Prompt:
        if not self._model.fills_blanks:
            return Prompt(ids, self._limits, how)
        blank = blank_of(ids, self._tokenizer.special)
        return Prompt(ids[:-1], self._limits, how, [blank], ids[-1])

    def _asked(self, record: JsonObject, answer: RolledOut) -> Asked:
        question: Question = read_question(record, self._config.examples)
        ids = answer.ids[:-1] if answer.complete else answer.ids
        examples = self._config.examples
        names = (examples.prompt_field, examples.messages_field, "messages", "conversations")
        prompt = next(record[name] for name in names if name in record)
        return Asked(prompt, self._text(ids, question), record, question.messages)

    def _text(self, ids: list[int], question: Question) -> str:
        # A model may have more ids than its tokenizer, and draw them while it knows nothing.
        ids = [id_ for id_ in ids if id_ < self._tokenizer.vocab_size]
        if not self._tokenizer.chat_end_ids:
            return self._tokenizer.decode(ids, skip_special=True).strip()
        return str(self._tokenizer.read_answer(ids, question.tools).get("content") or "")

    def _rewarded(self, asked: Sequence[Asked], answers: Sequence[RolledOut]) -> list[float | None]:
        """The rewards of all answers; None where a function gave none."""
        is_asked = [one.complete or self._settings.truncated != "zero" for one in answers]
        wanted = [one for one, ask in zip(asked, is_asked, strict=True) if ask]
        if self._settings.reward_model is not None:
            given = self._rewards(wanted)
        else:
            given = self._shared(wanted)
        rest = iter(given)
        return [next(rest) if ask else 0.0 for ask in is_asked]

    def _shared(self, asked: Sequence[Asked]) -> list[float | None]:
        """Each process asks for every so-many-th reward; all get all of them."""
        own, processes = share()

        def ask() -> str:
            return json.dumps(self._rewards(asked[own::processes]))

        parts = [json.loads(text) for text in on_all("rewards", ask, "compute rewards")]
        found: list[float | None] = [None] * len(asked)
        for index, part in enumerate(parts):
            found[index::processes] = part
        return found


class Making:
    """Makes the batches of a cycle from its prompts."""

    def __init__(self, config: Config, answering: Answering, scorer: Scorer, pad_id: int):
        """Args:
        config: of the run.
        answering: asks the policy.
        scorer: scores its answers.
        pad_id: of slots without a token.
        """
        self._config, self._answering = config, answering
        self._scorer, self._pad_id = scorer, pad_id

    def __call__(
        self, params: Params, reference: Params | None, prompts: PromptBatch, step: int
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

    def _rows(self, prompts: PromptBatch, answers: Sequence[RolledOut]) -> Batch:
        copies, fills = self._config.rollouts.group_size, self._config.model.fills_blanks
        special = self._answering.special
        examples = [
            answer_example(prompts.ids[row // copies], answer.ids, special, fills)
            for row, answer in enumerate(answers)
        ]
        return rows_of(examples, self._config.data.sequence_length, self._pad_id)

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


def in_parts(batch: RolloutBatch, size: int) -> list[RolloutBatch]:
    """Batches of `size` rows each; numpy."""

    def part(leaf: np.ndarray, start: int) -> np.ndarray:
        return leaf[start : start + size]

    return [
        jax.tree.map(functools.partial(part, start=start), batch)
        for start in range(0, len(batch.tokens), size)
    ]


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
