"""Six steps of AdamW against the published code, on the golden models."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from glm_jax.interop.huggingface import load_directory
from glm_jax.models.trees import stack_layers
from glm_jax.models.weights import decay_mask
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.state import optimizer_of
from glm_jax.training.step import make_train_step
from glm_jax.training.train_state import TrainState

MODELS = sorted((Path(__file__).parent.parent / "golden" / "glm" / "model").iterdir())


@pytest.fixture(params=MODELS, ids=lambda path: path.name)
def golden(request, tmp_path):
    """(description, directory of the batches, ModelConfig, params)."""
    folder = request.param
    description = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(description["config"]))
    shutil.copy(folder / "state_dict.safetensors", tmp_path / "model.safetensors")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config, params, _ = load_directory(tmp_path, None, mesh)
    return description, folder, config, stack_layers(params)


ROWS, LENGTH = 5, 64


def read_batch(path):
    """A golden batch, padded to one shape with slots of padding."""
    with np.load(path) as file:
        arrays = dict(file)
    rows, length = arrays["input_ids"].shape
    positions = arrays["position_ids"].reshape(rows, -1, length)
    fields = {
        "tokens": arrays["input_ids"],
        "targets": arrays["targets"],
        "loss_weights": arrays["loss_mask"],
        "positions": positions[:, 0],
        "block_positions": positions[:, 1] if positions.shape[1] > 1 else 0 * positions[:, 0],
        "attend_start": np.zeros((rows, length), np.int32),
        "attend_end": np.maximum(arrays["sep"][:, None], np.arange(1, length + 1)).astype(np.int32),
    }
    padding = ((0, ROWS - rows), (0, LENGTH - length))
    return Batch.from_dict({name: np.pad(value, padding) for name, value in fields.items()})


def test_adamw_trajectory(golden):
    description, folder, model, params = golden
    wanted = description["adamw_trajectory"]
    config = Config(
        model=dataclasses.replace(model, dropout_rate=0.0, attention_dropout_rate=0.0),
        data=DataConfig(batch_size=1),
        optimizer=OptimizerConfig(
            peak_learning_rate=wanted["lr"],
            schedule="constant",
            warmup_steps=0,
            beta1=wanted["betas"][0],
            beta2=wanted["betas"][1],
            epsilon=wanted["eps"],
            weight_decay=wanted["weight_decay"],
            clip_norm=wanted["clip_norm"],
        ),
        train=TrainConfig(num_steps=wanted["steps"]),
    )
    mesh = make_mesh(config.mesh)
    names = sorted(description["batches"])
    batches = [read_batch(folder / names[index]) for index in wanted["batch_order"]]
    train_step = make_train_step(config, mesh)
    state = TrainState(jnp.int32(0), params, {}, optimizer_of(config).init(params))
    losses, norms = [], []
    for batch in batches:
        state, metrics = train_step(state, batch)
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, wanted["losses"], rtol=2e-4)
    np.testing.assert_allclose(norms, wanted["grad_norm_before_clip"], rtol=1e-3)


def test_decay_groups(golden):
    """As many numbers decay as in the published code (its matrices are ours, cut otherwise)."""
    description, _, _, params = golden
    shapes = description["param_shapes"]
    expected = sum(int(np.prod(shapes[name])) for name in description["weight_decay_params"])
    sizes = jax.tree.map(lambda leaf, decays: leaf.size * decays, params, decay_mask(params))
    assert sum(jax.tree.leaves(sizes)) == expected
