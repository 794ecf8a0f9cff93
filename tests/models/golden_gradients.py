"""Gradients of a golden model, under the names of its checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from glm_jax.generation.language_model import LanguageModel
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind


def check_gradients(model, batch, file, directory):
    """Asserts that they are those of `file`, each to 1e-4 of its largest number."""
    expected = np.load(file)

    def loss(params):
        losses = token_losses(bind(model.config, params), batch)
        return jnp.sum(losses * batch.loss_weights) / jnp.sum(batch.loss_weights)

    gradients = jax.jit(jax.grad(loss))(model.params)
    LanguageModel(model.config, gradients, origin=model._origin).save(directory / "gradients")
    ours = load_file(directory / "gradients" / "model.safetensors")
    assert set(ours) == set(expected.files) - {"loss"}
    for key, value in ours.items():
        # Of large matrices the copies hold every fourth row.
        value = value[:: round(len(value) / len(expected[key]))]
        worst = np.abs(value - expected[key]).max() / np.abs(expected[key]).max()
        assert worst < 1e-4, (key, worst)
