"""Run by test_rolling_out.py in a process of its own: a cycle on eight devices is that on one.

The answers, their scores and the step after them, of GRPO with an adapter and of PPO, on three
meshes. Prints one JSON line last.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

import glm_jax
from glm_jax.config import MeshConfig
from glm_jax.models.trees import to_paths
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.feed import to_devices
from glm_jax.training.rollouts.assembling import Assembling
from glm_jax.training.rollouts.making import Making
from glm_jax.training.rollouts.scoring import Scorer
from glm_jax.training.run.start import starting_point
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.rollout_runs import prepared

MESHES = (
    MeshConfig(data=8),
    MeshConfig(data=2, fsdp=4),
    MeshConfig(data=2, fsdp=2, sequence=2),
)


def cycle(config, mesh):
    """The batches of a cycle, and the metrics and the parameters after a step on the first."""
    config, params = starting_point(config, Path("none"), mesh)
    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    state = create_state(config, mesh, params)
    assembling = Assembling(config, mesh, tokenizer, None, None)
    with assembling.rewards() as rewards:
        answering = assembling.answering(rewards)
        making = Making(config, answering, Scorer(config, mesh))
        made = making(state.params, None, next(glm_jax.batches(config)), 4)
    batch = to_devices(made.batches[0], batch_sharding(mesh))
    state, metrics = make_train_step(config, mesh)(state, batch)
    return made.batches, jax.device_get(metrics), jax.device_get(to_paths(state.trainable))


def main():
    alike = 0
    folder = Path(tempfile.mkdtemp())
    for loss in ("grpo", "ppo"):
        sections = {"lora": {"rank": 2, "dropout": 0.0}} if loss == "grpo" else {}
        config = prepared(folder, "causal", loss, rollouts={"batches": 2}, **sections)
        config = dataclasses.replace(
            config, optimizer=dataclasses.replace(config.optimizer, epsilon=1.0)
        )
        one = cycle(config, make_mesh(MeshConfig(), jax.devices()[:1]))
        for sizes in MESHES:
            many = cycle(dataclasses.replace(config, mesh=sizes), make_mesh(sizes))
            for a, b in zip(many[0], one[0], strict=True):
                np.testing.assert_array_equal(a.targets, b.targets)
                np.testing.assert_allclose(a.old, b.old, atol=1e-5)
                np.testing.assert_allclose(a.advantages, b.advantages, atol=1e-4)
            for name, value in one[1].items():
                np.testing.assert_allclose(many[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                many[2],
                one[2],
            )
            alike += 1
    print(json.dumps({"alike": alike}))


if __name__ == "__main__":
    main()
