"""The parts of a run over rollouts, in place of those of a run over rows of files."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.data.examples.building import objects_by_split
from glm_jax.data.examples.makers import maker_of
from glm_jax.errors import UserError
from glm_jax.generation.engine import Engine
from glm_jax.generation.rewards import rewards as rewards_by_model
from glm_jax.json_files import JsonObject
from glm_jax.losses.registry import Sums
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.feed import Stream
from glm_jax.training.rollouts.answering import Answering
from glm_jax.training.rollouts.evaluating import RolloutEvaluator, RolloutSampler
from glm_jax.training.rollouts.feed import RolloutFeed
from glm_jax.training.rollouts.making import Making
from glm_jax.training.rollouts.reference import Reference
from glm_jax.training.rollouts.rewarding import RewardFunction, RewardModel, Rewards
from glm_jax.training.rollouts.scoring import Scorer

if TYPE_CHECKING:
    from glm_jax.checkpoints.loading import Loaded
    from glm_jax.data.examples.prompt_rows import PromptBatch


@dataclasses.dataclass(frozen=True)
class RolloutParts:
    """What a run over rollouts is made of."""

    evaluator: RolloutEvaluator
    sampler: RolloutSampler
    feed: RolloutFeed


def reward_model(settings: str, found: "Loaded") -> RewardModel:
    """A model that was loaded, as what gives rewards.

    Args:
      settings: `rollouts.reward_model`, for the message.
      found: the model.

    Raises:
      UserError: it has no value head, or no tokenizer.
    """
    if not found.config.value_head or found.tokenizer is None:
        raise UserError(
            f"rollouts.reward_model={settings!r} has no "
            f"{'tokenizer' if found.config.value_head else 'value head'}; train.loss='reward' "
            "trains a model that has one"
        )
    return RewardModel(
        functools.partial(rewards_by_model, found.config, found.params, found.tokenizer)
    )


def records_of(config: Config, tokenizer: Tokenizer) -> dict[str, list[JsonObject]]:
    """The objects of the files of prompts by split, in the order of the prompts."""
    maker = maker_of(config.examples, tokenizer, config.model.fills_blanks)
    found = objects_by_split(config, maker)
    return {split: [record for _, record in objects] for split, objects in found.items()}


@dataclasses.dataclass(frozen=True)
class Assembling:
    """Makes the parts of a run.

    Attributes:
      config, mesh, tokenizer: of the run.
      load: reads a model onto the mesh (`glm_jax.checkpoints.loading.load_model`).
      eval_step: of the run (`glm_jax.training.step.make_eval_step`).
    """

    config: Config
    mesh: Mesh
    tokenizer: Tokenizer
    load: "Callable[[str], Loaded]"
    eval_step: Callable[[Params, Batch], Sums]

    def rewards(self) -> Rewards:
        """What gives rewards: a function in processes of its own, or a model on the mesh.

        Raises:
          UserError: no such file, function or model, or a model without a value head.
        """
        named = self.config.rollouts.reward_model
        if named is None:
            return RewardFunction(self.config.rollouts)
        return reward_model(named, self.load(named))

    def answering(self, rewards: Rewards) -> Answering:
        """What asks the policy."""
        model = self.config.resolved_model
        return Answering(
            self.config,
            self.mesh,
            self.tokenizer,
            records_of(self.config, self.tokenizer),
            rewards,
            functools.partial(Engine, model, tiles=False, shared=True),
        )

    def parts(
        self,
        stream: Stream,
        held_out: Sequence[Batch],
        params: Params | None,
        workdir: Path,
        samples: Path,
    ) -> RolloutParts:
        """Makes them, and starts what gives rewards.

        Args:
          stream: of the prompts of all processes, at its place.
          held_out: prompts of the evaluation.
          params: that the run began with, for the reference; None: they are drawn.
          workdir: of the run.
          samples: path of samples.txt.

        Raises:
          UserError: as `rewards`, or the reference is not the one that the run began with.
        """
        config, prompts = self.config, cast("Sequence[PromptBatch]", held_out)
        reference = None
        if config.policy.has_reference:
            reference = Reference(config, self.mesh, params)
            reference.check(workdir)
        with contextlib.ExitStack() as stack:
            rewards = self.rewards()
            stack.callback(rewards.close)
            answering = self.answering(rewards)
            evaluator = RolloutEvaluator(config, answering, prompts, self.eval_step)
            scorer = Scorer(config, self.mesh)
            feed = RolloutFeed(
                stream,
                Making(config, answering, scorer),
                reference,
                config.rollouts.passes,
                batch_sharding(self.mesh),
                stack.pop_all().close,
            )
        return RolloutParts(evaluator, RolloutSampler(evaluator, prompts[0], samples), feed)
