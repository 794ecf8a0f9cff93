"""The published model, number for number: outputs of THUDM/GLM on random weights (float32)."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from safetensors.numpy import load_file

import glm_jax
from glm_jax.batch import Batch, prefix_bounds
from glm_jax.interop.key_tables import ARCHITECTURES
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind
from glm_jax.models.trees import to_paths
from glm_jax.models.weights import decay_mask

GOLDEN = Path(__file__).parents[1] / "golden" / "glm" / "model"
BATCHES = sorted(GOLDEN.glob("*/batch_*.npz"))
GRADIENTS = sorted(GOLDEN.glob("*/grads_*.npz"))


@pytest.fixture(scope="module")
def load_golden(tmp_path_factory):
    """Loads a golden model through a directory such as a user has."""
    models = {}

    def load(name):
        if name not in models:
            directory = tmp_path_factory.mktemp(name)
            config = json.loads((GOLDEN / name / "config.json").read_text())["config"]
            (directory / "config.json").write_text(json.dumps(config))
            shutil.copy(GOLDEN / name / "state_dict.safetensors", directory / "model.safetensors")
            models[name] = glm_jax.load(directory)
        return models[name]

    return load


def to_batch(arrays):
    tokens, sep = arrays["input_ids"], arrays["sep"]
    bounds = [prefix_bounds(int(s), tokens.shape[1]) for s in sep]
    positions = arrays["position_ids"]
    two = positions.ndim == 3
    return Batch.from_dict(
        {
            "tokens": tokens,
            "targets": arrays["targets"],
            "loss_weights": arrays["loss_mask"],
            "positions": positions[:, 0] if two else positions,
            "block_positions": positions[:, 1] if two else np.zeros_like(tokens),
            "attend_start": np.stack([start for start, _ in bounds]),
            "attend_end": np.stack([end for _, end in bounds]),
        }
    )


def test_all_golden_files_are_here():
    assert len(BATCHES) == 18
    assert len(GRADIENTS) == 4


@pytest.mark.parametrize("path", BATCHES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_logits_and_losses(path, load_golden):
    name = path.parent.name
    lm, golden = load_golden(name), np.load(path)
    batch = to_batch(golden)
    tolerance = 5e-6 if "init" in name else 5e-5
    logits = np.asarray(lm.logits(batch))
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=tolerance)
    picked = np.take_along_axis(logits, golden["targets"][..., None], axis=-1)[..., 0]
    losses = scipy.special.logsumexp(logits, axis=-1) - picked
    np.testing.assert_allclose(losses, golden["token_loss"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(lm.loss(batch.to_dict()), golden["loss"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", GRADIENTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_gradients_of_every_parameter(path, load_golden):
    lm, golden = load_golden(path.parent.name), np.load(path)
    arrays = np.load(path.with_name(path.name.replace("grads", "batch")))
    batch = to_batch(arrays)

    def loss(params):
        losses = token_losses(bind(lm.config, params), batch)
        return jnp.sum(losses * batch.loss_weights) / jnp.sum(batch.loss_weights)

    gradients = to_paths(jax.jit(jax.grad(loss))(lm.params))
    norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in gradients.values()))
    np.testing.assert_allclose(norm, arrays["grad_global_norm"], rtol=1e-5)
    rows = ARCHITECTURES[0].rows(lm.config)
    assert {row.key for row in rows} == set(golden)
    for row in rows:
        ours = row.join(*(np.asarray(gradients.pop(path)) for path in row.paths))
        # Of large matrices the copies hold every fourth row; the norm above is of all.
        ours = ours[:: round(len(ours) / len(golden[row.key]))]
        limit = 1e-4 * np.abs(golden[row.key]).max() + 1e-7
        np.testing.assert_allclose(ours, golden[row.key], rtol=0, atol=limit, err_msg=row.key)
    assert not gradients


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.iterdir()))
def test_decay_groups_and_parameter_count(name, load_golden):
    lm = load_golden(name)
    about = json.loads((GOLDEN / name / "config.json").read_text())
    decays = to_paths(decay_mask(lm.params))
    undecayed = {
        row.key
        for row in ARCHITECTURES[0].rows(lm.config)
        if not any(decays[path] for path in row.paths)
    }
    assert undecayed == set(about["no_weight_decay_params"])
    assert sum(leaf.size for leaf in jax.tree.leaves(lm.params)) == about["param_count"]


def test_the_key_table_holds_every_tensor_once(load_golden):
    lm = load_golden("glm_rand_l3h96")
    tensors = load_file(GOLDEN / "glm_rand_l3h96" / "state_dict.safetensors")
    rows = ARCHITECTURES[0].rows(lm.config)
    assert {row.key: row.shape for row in rows} == {k: t.shape for k, t in tensors.items()}
    assert sorted(path for row in rows for path in row.paths) == sorted(to_paths(lm.params))
