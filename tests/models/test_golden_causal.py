"""The causal models against what the published implementations give (README of tests/golden).

Four rows each: full, padded on the left, padded on the right, full. Places of padding are left out:
what they hold is each implementation's own affair.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import glm_jax
from glm_jax.generation.cache import empty_cache
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import bind
from tests.models.golden_batches import batch_of, padded_batch
from tests.models.golden_gradients import check_gradients

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MODELS = ("chatglm2", "chatglm3", "glm4_9b", "glm4_0414")


@pytest.fixture(scope="module", params=MODELS)
def golden(request):
    """A model, and the vectors of it."""
    return glm_jax.load(GOLDEN / request.param), np.load(GOLDEN / request.param / "vectors.npz")


def test_logits_hidden_states_and_loss(golden):
    model, vectors = golden
    batch, real = padded_batch(vectors)
    np.testing.assert_allclose(
        np.asarray(model.logits(batch))[real], vectors["logits"][real], atol=1e-4, rtol=0
    )
    assert abs(float(model.loss(batch)) - float(vectors["loss"])) < 1e-5
    hidden = bind(model.config, model.params)(
        batch.tokens, batch.positions, batch.block_positions, batch.attend_start, batch.attend_end
    )
    np.testing.assert_allclose(
        np.asarray(hidden)[real], vectors["final_hidden"][real], atol=1e-4, rtol=0
    )


def test_keys_and_values_of_the_first_layer(golden):
    """Keys are kept rotated, in groups."""
    model, vectors = golden
    batch, real = padded_batch(vectors)
    rows, length = batch.tokens.shape
    _, caches = bind(model.config, model.params).extend(
        batch.tokens,
        batch.positions,
        batch.block_positions,
        batch.attend_start,
        batch.attend_end,
        empty_cache(model.config, rows, length),
    )
    for name, ours in (("key", caches[0].keys), ("value", caches[0].values)):
        if f"layer0_{name}_cache_sbgd" in vectors:
            theirs = np.moveaxis(vectors[f"layer0_{name}_cache_sbgd"], 1, 0)
        else:
            theirs = np.moveaxis(vectors[f"layer0_{name}_cache_bgsd"], 1, 2)
        ours = np.moveaxis(np.asarray(ours), 1, 2)
        np.testing.assert_allclose(ours[real], theirs[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3"])
def test_two_documents_in_one_row(name):
    model, vectors = glm_jax.load(GOLDEN / name), np.load(GOLDEN / name / "vectors.npz")
    segments = vectors["packed_segment_ids"]
    start = np.argmax(segments[:, :, None] == segments[:, None, :], axis=2)
    end = np.arange(1, segments.shape[1] + 1)[None]
    batch = batch_of(vectors["packed_input_ids"], vectors["packed_position_ids"], start, end)
    np.testing.assert_allclose(model.logits(batch), vectors["packed_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["chatglm2", "glm4_0414"])
def test_gradients(name, tmp_path):
    batch, _ = padded_batch(np.load(GOLDEN / name / "vectors.npz"))
    check_gradients(glm_jax.load(GOLDEN / name), batch, GOLDEN / name / "grads.npz", tmp_path)


LONG = {
    "chatglm2-logits_plain": {},
    "chatglm2-logits_rope_ratio_base": {
        "rotary_scaling": "base",
        "rotary_factor": "rope_ratio_base",
    },
    "chatglm2-logits_linear_interp": {
        "rotary_scaling": "linear",
        "rotary_factor": "linear_ratio",
    },
    "glm4_0414-logits_plain": {},
    "glm4_0414-logits_yarn": {
        "rotary_scaling": "yarn",
        "rotary_factor": "yarn_factor",
        "rotary_original_positions": "yarn_original_max_position_embeddings",
    },
}


@pytest.mark.parametrize("case", LONG)
def test_long_context(case):
    """The last 20 slots of texts of 120 and 200 tokens."""
    name, key = case.split("-")
    model, vectors = glm_jax.load(GOLDEN / name), np.load(GOLDEN / name / "long_context.npz")
    options = {
        field: vectors[value].item() if value in vectors else value
        for field, value in LONG[case].items()
    }
    config = dataclasses.replace(model.config, **options)
    slots = np.arange(vectors["input_ids"].shape[1])[None]
    batch = batch_of(vectors["input_ids"], slots, 0 * slots, slots + 1)
    logits = LanguageModel(config, model.params).logits(batch)
    np.testing.assert_allclose(logits[:, -20:], vectors[key], atol=1e-4, rtol=0)
