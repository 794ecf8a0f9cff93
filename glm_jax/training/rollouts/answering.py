"""Asks a policy for answers, and for their rewards.

prompts  ->  ids, drawn or greedy  ->  texts  ->  rewards: each process asks for its share
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from glm_jax.config import Config
from glm_jax.data.examples.prompts import Question, blank_of, read_question
from glm_jax.generation.cache import bucket
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.rollouts import RolledOut, roll_out
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Room
from glm_jax.json_files import JsonObject
from glm_jax.models.seeds import fold_name, key_of
from glm_jax.models.trees import Params
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.distributed import on_all, share
from glm_jax.training.memory import answers_at_once, cache_slots
from glm_jax.training.rollouts.rewarding import Asked, Rewards

if TYPE_CHECKING:
    from glm_jax.data.examples.prompt_rows import PromptBatch
    from glm_jax.generation.engine import Engine


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


class Answering:
    """Asks a policy, and asks for rewards."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        tokenizer: Tokenizer,
        records: Mapping[str, Sequence[JsonObject]],
        rewards: Rewards,
        engine_of: "Callable[[Params], Engine]",
    ):
        """Args:
        config: of the run.
        mesh: of the parameters.
        tokenizer: of the data.
        records: the objects of the files by split, in the order of the prompts.
        rewards: gives rewards; each process its share, but of a reward model.
        engine_of: makes the engine that decodes with parameters.
        """
        self._engine_of = engine_of
        self._config, self._tokenizer, self._records = config, tokenizer, records
        self._rewards, self._settings = rewards, config.rollouts
        self._model, self._mesh = config.resolved_model, mesh
        special = self.special = tokenizer.special
        ends = {special.eos, *tokenizer.chat_end_ids}
        if self._model.fills_blanks:
            ends.add(special.end)
        self._limits = Limits(sorted(ends), self._settings.max_new_tokens)
        # Of every cycle the same sizes, so that nothing is compiled again.
        self._room = Room(
            cache_slots(config),
            bucket(self._settings.max_new_tokens),
            1,
            len(self._limits.end_ids),
        )

    def __call__(
        self,
        params: Params,
        prompts: "PromptBatch",
        split: str,
        step: int,
        copies: int,
        greedy: bool,
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
            self._engine_of(params),
            [self._prompt(ids, how) for ids in prompts.ids],
            copies,
            jax.random.fold_in(key, step),
            self._room,
            answers_at_once(self._config, len(prompts.ids) * copies, self._mesh),
        )
        records = [self._records[split][number] for number in prompts.numbers.tolist()]
        questions = [read_question(record, self._config.examples) for record in records]
        asked = [
            self._asked(records[row // copies], questions[row // copies], answer)
            for row, answer in enumerate(answers)
        ]
        found = self._rewarded(asked, answers)
        failed = sum(one is None for one in found)
        instead = self._settings.failed_reward
        given = [instead if one is None else one for one in found]
        return Answered(asked, answers, np.array(given, np.float64), failed)

    def _prompt(self, ids: list[int], how: Sampling) -> Prompt:
        if not self._model.fills_blanks:
            return Prompt(ids, self._limits, how)
        blank = blank_of(ids, self._tokenizer.special)
        return Prompt(ids[:-1], self._limits, how, [blank], ids[-1])

    def _asked(self, record: JsonObject, question: Question, answer: RolledOut) -> Asked:
        ids = answer.ids[:-1] if answer.complete else answer.ids
        return Asked(question.given, self._text(ids, question), record, question.messages)

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
