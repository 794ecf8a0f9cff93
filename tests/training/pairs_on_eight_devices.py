"""Run by test_aligning.py in a process of its own: a step on eight devices is that on one.

Of DPO and of the reward model, on four meshes, with two micro-batches where rows allow it. Prints
one JSON line last.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses
import json

import jax
import numpy as np

from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step
from tests.losses.test_pairs import ROWS, T, batch_of, config_of

MESHES = (
    MeshConfig(data=8),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=2, fsdp=2, sequence=2),
    MeshConfig(data=1, fsdp=4, tensor=2),
)


def step(config, mesh, batch):
    """The metrics of a step, and the parameters after it."""
    state = create_state(config, mesh)
    batch = jax.device_put(batch, batch_sharding(mesh))
    state, metrics = make_train_step(config, mesh)(state, batch)
    return jax.device_get((metrics, state.trainable))


def main():
    alike, rows = 0, [*ROWS[:3], ROWS[1]] * 3 + [None] * 4
    reference = -np.random.default_rng(0).random((len(rows), T))
    for loss in ("dpo", "reward"):
        batch = batch_of(rows, reference if loss == "dpo" else None)
        for sizes in MESHES:
            count = 2 if len(rows) % (16) == 0 else 1
            config = config_of(loss, train={"accumulation_steps": count})
            config = dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, batch_size=len(rows)),
                optimizer=dataclasses.replace(config.optimizer, epsilon=1.0),
            )
            one = step(config, make_mesh(MeshConfig(), jax.devices()[:1]), batch)
            many = step(config, make_mesh(sizes), batch)
            for name, value in one[0].items():
                np.testing.assert_allclose(many[0][name], value, rtol=2e-5, atol=2e-6, err_msg=name)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), many[1], one[1]
            )
            alike += 1
    print(json.dumps({"alike": alike}))


if __name__ == "__main__":
    main()
