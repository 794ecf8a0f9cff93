"""Evaluation of a policy: its most probable answers to held-out prompts, and their rewards."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.losses.registry import Sums, loss_of
from glm_jax.models.trees import Params
from glm_jax.training.distributed import any_of, is_first, on_first
from glm_jax.training.rollouts.answering import Answered, Answering
from glm_jax.training.watch.progress import say
from glm_jax.training.watch.sections import SectionFile

if TYPE_CHECKING:
    from glm_jax.data.examples.prompt_rows import PromptBatch

_SHOWN = 6
_LONGEST = 300  # letters of a prompt or an answer


class RolloutEvaluator:
    """What `glm_jax.training.evaluation.Evaluator` is for rows of files."""

    def __init__(
        self,
        config: Config,
        answering: Answering,
        prompts: "Sequence[PromptBatch]",
        eval_step: Callable[[Params, Batch], Sums],
    ):
        """Args:
        config: of the run.
        answering: asks the policy.
        prompts: held out, the same in every evaluation.
        eval_step: gives the sums of the loss of a batch (`training.step.make_eval_step`).
        """
        self._train, self._loss = config.train, loss_of(config)
        self._answering, self._prompts = answering, prompts
        self._eval_step = eval_step

    def __call__(self, params: Params) -> dict[str, float]:
        """`eval/reward`, `eval/length/answer` and the other metrics of answers (`Answered`)."""
        found = [self.answered(params, batch) for batch in self._prompts]
        whole = Answered(
            [one for part in found for one in part.asked],
            [one for part in found for one in part.answers],
            np.concatenate([part.rewards for part in found]),
            sum(part.failed for part in found),
        )
        return {f"eval/{name}": value for name, value in whole.metrics().items()}

    def answered(self, params: Params, batch: "PromptBatch") -> Answered:
        """One greedy answer to each prompt."""
        return self._answering(params, batch, "eval", 0, 1, greedy=True)

    def loss_of(self, params: Params, batch: Batch) -> float:
        """The loss of one batch of rollouts."""
        sums = self._eval_step(params, batch)
        return float(self._loss.summarize(self._train, jax.tree.map(np.asarray, sums))["loss"])


class RolloutSampler:
    """Writes `samples.txt`: answers to held-out prompts, always the same, with their rewards."""

    def __init__(self, evaluator: RolloutEvaluator, prompts: "PromptBatch", path: Path):
        """Args:
        evaluator: asks the policy.
        prompts: of which the first are shown.
        path: of samples.txt.
        """
        self._evaluator, self._prompts = evaluator, prompts
        self._file = SectionFile(path)

    def rewind(self, step: int) -> None:
        """As of `glm_jax.training.watch.samples.Sampler`."""
        self._file.rewind(step)

    def lacks(self, step: int) -> bool:
        """As of `Sampler`."""
        return any_of(is_first() and not self._file.has(step))

    def section(self, step: int, params: Params) -> str:
        """The text of a step; to be called by every process that holds parameters."""
        found = self._evaluator.answered(params, self._prompts)
        lines = [f"step {step}"]
        shown = zip(found.asked, found.answers, found.rewards, strict=True)
        for asked, answer, reward in list(shown)[:_SHOWN]:
            prompt = asked.messages[-1]["content"]
            cut = "" if answer.complete else " (cut off)"
            lines += [f"  prompt: {_line(prompt)}", f"    answer: {_line(asked.answer)}{cut}"]
            lines += [f"    reward: {reward:g}"]
        return "".join(f"{line}\n" for line in lines)

    def add(self, step: int, params: Params) -> None:
        """As of `Sampler`."""
        section = self.section(step, params)
        on_first(lambda: self._file.add(section), "write samples.txt")
        say(section)


def _line(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]} …"
