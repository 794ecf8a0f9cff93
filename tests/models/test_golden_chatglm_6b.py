"""ChatGLM-6B against what its published code gives (README of tests/golden).

Four rows: a prompt that ends in [gMASK] sop, the same padded on the left, a [MASK] in the middle, a
training row padded on the right. The masks are those of the published code, in which no key is
visible to a row of padding: what such a row holds is left out.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import glm_jax
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.language_model import LanguageModel
from glm_jax.interop.architectures.chatglm_6b import feature_order
from glm_jax.models.params import bind
from tests.models.golden_batches import masked_batch
from tests.models.golden_gradients import check_gradients

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm" / "chatglm1"


@pytest.fixture(scope="module")
def model():
    return glm_jax.load(GOLDEN)


@pytest.fixture(scope="module")
def vectors():
    return dict(np.load(GOLDEN / "vectors.npz"))


@pytest.fixture(scope="module")
def batch(vectors):
    return masked_batch(vectors)[0]


def close(ours, theirs, vectors):
    real = vectors["valid"]
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], atol=1e-4, rtol=0)


def test_logits_and_loss(model, batch, vectors):
    assert model.config.residual_alpha == 2.0  # sqrt(2 * 2 layers)
    close(model.logits(batch), vectors["logits"], vectors)
    assert abs(float(model.loss(batch)) - float(vectors["loss"])) < 1e-5


def test_the_alpha_of_28_layers_whatever_their_number(model, batch, vectors):
    """As the published code has it, which does not tell its layers how many they are."""
    config = dataclasses.replace(model.config, residual_alpha_layers=28)
    other = LanguageModel(config, model.params)
    close(other.logits(batch), vectors["logits_alpha28"], vectors)
    assert abs(float(other.loss(batch)) - float(vectors["loss_alpha28"])) < 1e-5
    assert np.abs(np.asarray(other.logits(batch)) - vectors["logits"]).max() > 1


def test_angles_that_are_not_rounded(model, batch, vectors):
    config = dataclasses.replace(model.config, rotary_dtype="float32")
    exact = LanguageModel(config, model.params).logits(batch)
    theirs = vectors["logits_exact_inv_freq"]
    np.testing.assert_allclose(
        np.asarray(exact)[vectors["valid"]], theirs[vectors["valid"]], atol=2e-5, rtol=0
    )
    # The rounding is more than that tolerance, so it was seen.
    assert np.abs(theirs - vectors["logits"])[vectors["valid"]].max() > 1e-4


def test_keys_and_values_of_the_first_layer(model, batch, vectors):
    """Keys are kept rotated, and their features in our order."""
    rows, length = batch.tokens.shape
    _, caches = bind(model.config, model.params).extend(
        batch.tokens,
        batch.positions,
        batch.block_positions,
        batch.attend_start,
        batch.attend_end,
        empty_cache(model.config, rows, length),
    )
    keys, values = (np.moveaxis(np.asarray(x), 1, 2) for x in (caches[0].keys, caches[0].values))
    theirs = np.moveaxis(vectors["layer0_key_cache_sbhd"], 1, 0)
    close(keys, theirs[..., feature_order(model.config.head_dim)], vectors)
    close(values, np.moveaxis(vectors["layer0_value_cache_sbhd"], 1, 0), vectors)


def test_gradients(model, batch, tmp_path):
    check_gradients(model, batch, GOLDEN / "grads.npz", tmp_path)
