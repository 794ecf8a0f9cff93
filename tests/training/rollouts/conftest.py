"""A tiny causal policy and what asks it, shared by the tests of rollouts."""

import dataclasses
import functools
from types import SimpleNamespace

import pytest

import glm_jax
from glm_jax.checkpoints.loading import load_model
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.rollouts.assembling import Assembling
from glm_jax.training.rollouts.making import Making
from glm_jax.training.rollouts.scoring import Scorer
from glm_jax.training.run.start import starting_point
from glm_jax.training.state import create_state
from glm_jax.training.step import make_eval_step
from tests.rollout_runs import prepared


@pytest.fixture(scope="session")
def rollout_folder(tmp_path_factory):
    """Where bases, prompts and rewards are."""
    return tmp_path_factory.mktemp("rollouts")


@pytest.fixture(scope="session")
def policy_of(rollout_folder):
    """Makes the parts of a run: `policy_of("causal", "ppo", rollouts={..}).making(..)`."""
    opened = []

    def made(kind="causal", loss="grpo", **sections):
        config = prepared(rollout_folder, kind, loss, **sections)
        mesh = make_mesh(config.mesh)
        config, params = starting_point(config, rollout_folder / "none", mesh)
        tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
        load, eval_step = functools.partial(load_model, mesh=mesh), make_eval_step(config, mesh)
        assembling = Assembling(config, mesh, tokenizer, load, eval_step)
        rewards = assembling.rewards()
        opened.append(rewards)
        answering = assembling.answering(rewards)
        scorer = Scorer(config, mesh)
        return SimpleNamespace(
            config=config,
            mesh=mesh,
            params=params,
            tokenizer=tokenizer,
            assembling=assembling,
            eval_step=eval_step,
            answering=answering,
            scorer=scorer,
            making=Making(config, answering, scorer),
            state=create_state(config, mesh, params),
            stream=lambda split="train": glm_jax.batches(config, split),
            changed=lambda **values: dataclasses.replace(config, **values),
        )

    yield made
    for rewards in opened:
        rewards.close()
