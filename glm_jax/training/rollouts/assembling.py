"""The parts of a run over rollouts, in place of those of a run over rows of files."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.examples.building import objects_of
from glm_jax.data.examples.makers import maker_of
from glm_jax.data.examples.prompts import PromptBatch
from glm_jax.errors import UserError
from glm_jax.generation.language_model import load
from glm_jax.json_files import JsonObject
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.feed import Stream
from glm_jax.training.rollouts.evaluating import RolloutEvaluator, RolloutSampler
from glm_jax.training.rollouts.feed import RolloutFeed
from glm_jax.training.rollouts.making import Answering, Making
from glm_jax.training.rollouts.reference import Reference
from glm_jax.training.rollouts.rewarding import RewardFunction, RewardModel, Rewards
from glm_jax.training.rollouts.scoring import Scorer


@dataclasses.dataclass(frozen=True)
class RolloutParts:
    """What a run over rollouts is made of."""

    evaluator: RolloutEvaluator
    sampler: RolloutSampler
    feed: RolloutFeed


def rewards_of(config: Config, mesh: Mesh) -> Rewards:
    """What gives rewards: a function in processes of its own, or a model on the mesh.

    Raises:
      UserError: no such file, function or model, or a model without a value head.
    """
    settings = config.rollouts
    if settings.reward_model is None:
        return RewardFunction(settings)
    model = load(settings.reward_model, mesh=mesh)
    if not model.config.value_head:
        raise UserError(
            f"rollouts.reward_model={settings.reward_model!r} has no value head; "
            "train.loss='reward' trains a model that has one"
        )
    return RewardModel(model)


def records_of(config: Config, tokenizer: Tokenizer) -> dict[str, list[JsonObject]]:
    """The objects of the files of prompts by split, in the order of the prompts."""
    maker = maker_of(config.examples, tokenizer, config.model.fills_blanks)
    return {split: [record for _, record in objects_of(config, maker, split)] for split in SPLITS}


def assembled(
    config: Config,
    mesh: Mesh,
    tokenizer: Tokenizer,
    stream: Stream,
    held_out: Sequence[Batch],
    params: Params | None,
    workdir: Path,
    samples: Path,
) -> RolloutParts:
    """Makes them, and starts what gives rewards.

    Args:
      config, mesh, tokenizer: of the run.
      stream: of the prompts of all processes, at its place.
      held_out: prompts of the evaluation.
      params: that the run began with, for the reference; None: they are drawn.
      workdir: of the run.
      samples: path of samples.txt.

    Raises:
      UserError: as `rewards_of`, or the reference is not the one that the run began with.
    """
    prompts = [batch for batch in held_out if isinstance(batch, PromptBatch)]
    reference = None
    if config.policy.has_reference:
        reference = Reference(config, mesh, params)
        reference.check(workdir)
    with contextlib.ExitStack() as stack:
        rewards = rewards_of(config, mesh)
        stack.callback(rewards.close)
        answering = Answering(config, mesh, tokenizer, records_of(config, tokenizer), rewards)
        evaluator = RolloutEvaluator(config, mesh, answering, prompts)
        making = Making(config, answering, Scorer(config, mesh), tokenizer.special.pad)
        feed = RolloutFeed(
            stream,
            making,
            reference,
            config.rollouts.passes,
            batch_sharding(mesh),
            stack.pop_all().close,
        )
        return RolloutParts(evaluator, RolloutSampler(evaluator, prompts[0], samples), feed)
