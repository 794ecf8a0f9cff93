"""The section `rollouts` of a config: answers that a policy gives while it is trained."""

import dataclasses

from glm_jax.checks import check, check_choice, check_types, finite_number, whole_number
from glm_jax.errors import UserError, short

# The losses of `train.loss` over answers of the policy itself.
LOSSES_OF_ROLLOUTS = ("grpo", "ppo")


@dataclasses.dataclass(frozen=True)
class RolloutsConfig:
    """Answers of the policy to prompts (examples.format="prompts"), and their rewards.

    A cycle makes `batches` x data.batch_size answers, `group_size` to each prompt, and takes
    `batches` x `passes` optimizer steps on them:

        group_size 4, data.batch_size 8, batches 2      4 prompts, 16 answers, steps 1 and 2

    Attributes:
      group_size: answers to each prompt; divides data.batch_size.
      max_new_tokens: ids of the longest answer, its end included. A prompt may have
        data.sequence_length - max_new_tokens + 1.
      temperature: of sampling, and of the policy that is trained: both divide logits by it.
      batches, passes: of a cycle: its answers in batches, and how often they are gone through. The
        clip ratio acts where one of them is above 1. train.num_steps
        and train.checkpoint_every are multiples of their product.
      slots: answers that are decoded at once, which bounds the memory of caches; None: all of a
        cycle.
      reward: "my/rewards.py:exact", a function (prompt, answer, example) -> float in a Python file,
        which is run: the prompt as it stands in the file, the answer's text, the whole object. It
        must give the same for the same, or a resumed run is another.
      reward_model: a model with a value head, in place of `reward`: a workdir of a run with
        train.loss="reward".
      reward_seconds: a call of `reward` may take.
      reward_workers: processes in which it is called, on each host.
      failed_reward: the reward of an answer for which `reward` raises, overruns or gives no finite
        number; these are counted. None: that ends the run.
      truncated: what an answer without an end gets. "score": its reward as any other; "zero": 0,
        and the function is not asked; "mask": its reward counts in its group, its tokens not in the
        loss.
    """

    group_size: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    batches: int = 1
    passes: int = 1
    slots: int | None = None
    reward: str | None = None
    reward_model: str | None = None
    reward_seconds: float = 10.0
    reward_workers: int = 1
    failed_reward: float | None = None
    truncated: str = "score"

    def __post_init__(self):
        check_types(self, "rollouts")
        for name in ("group_size", "max_new_tokens", "batches", "passes", "reward_workers"):
            whole_number(f"rollouts.{name}", getattr(self, name), 1)
        if self.slots is not None:
            whole_number("rollouts.slots", self.slots, 1)
        finite_number("rollouts.temperature", self.temperature, least=1e-2)
        finite_number("rollouts.reward_seconds", self.reward_seconds, above=0)
        if self.failed_reward is not None:
            finite_number("rollouts.failed_reward", self.failed_reward)
        check_choice("rollouts.truncated", self.truncated, ["score", "zero", "mask"])
        if self.reward is not None:
            file, _, name = self.reward.rpartition(":")
            check(
                file.endswith(".py") and name.isidentifier(),
                "rollouts.reward",
                short(self.reward),
                "a file and a function in it, my/rewards.py:exact",
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of a cycle."""
        return self.batches * self.passes

    def check(self, loss: str, batch_size: int, num_steps: int, checkpoint_every: int) -> None:
        """Refuses options that do not fit the others of a run, or do nothing in it.

        Args:
          loss: `train.loss`.
          batch_size: `data.batch_size`.
          num_steps, checkpoint_every: of `train`.

        Raises:
          UserError: names the option.
        """
        if loss not in LOSSES_OF_ROLLOUTS:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    raise UserError(
                        f"rollouts.{field.name}={getattr(self, field.name)!r} does nothing with "
                        f"train.loss={loss!r}; it is of {', '.join(map(repr, LOSSES_OF_ROLLOUTS))}"
                    )
            return
        if (self.reward is None) == (self.reward_model is None):
            raise UserError(
                f"train.loss={loss!r} takes one of rollouts.reward, a function in a file, and "
                f"rollouts.reward_model; got {self.reward!r} and {self.reward_model!r}"
            )
        if batch_size % self.group_size:
            raise UserError(
                f"data.batch_size must be a multiple of rollouts.group_size={self.group_size}; "
                f"got {batch_size}"
            )
        if loss == "grpo" and self.group_size < 2:
            raise UserError(
                "train.loss='grpo' compares the answers to a prompt: rollouts.group_size must be "
                f"2 at least; got {self.group_size}"
            )
        for name, value in (("num_steps", num_steps), ("checkpoint_every", checkpoint_every)):
            if value % self.steps:
                raise UserError(
                    f"train.{name} must be a multiple of the {self.steps} steps of a cycle "
                    f"(rollouts.batches x rollouts.passes); got {value}"
                )
