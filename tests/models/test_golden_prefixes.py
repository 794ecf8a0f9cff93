"""Trained prefixes against the published code (P-Tuning v2, both encoders, three generations).

The golden rows are those of the models without a prefix, padded on the left and right among them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import glm_jax
from glm_jax.generation.language_model import LanguageModel
from glm_jax.interop.prefixes import key_order
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind
from glm_jax.models.trees import stack_layers
from tests.interop.prefix_directories import (
    GOLDEN,
    MODELS,
    batch_of_model,
    encoder,
    vectors_of,
    write_ptuning,
)


@pytest.fixture(scope="module", params=[f"{m}-{form}" for m in MODELS for form in ("emb", "proj")])
def golden(request, tmp_path_factory):
    """(name, form, the model with its prefix)."""
    name, form = request.param.split("-")
    path = write_ptuning(tmp_path_factory.mktemp(request.param) / "prefix", name, form)
    return name, form, glm_jax.load(GOLDEN / name, adapter=path)


def test_logits_and_loss(golden):
    name, form, model = golden
    batch, real = batch_of_model(name)
    vectors = vectors_of(name)
    ours = np.asarray(model.logits(batch))[..., ::4]
    np.testing.assert_allclose(ours[real], vectors[f"{form}_logits"][real], atol=1e-4, rtol=0)
    assert abs(float(model.loss(batch)) - float(vectors[f"{form}_loss"])) < 1e-5


def test_keys_and_values_of_the_first_layer(golden):
    """Keys are not rotated, and those of ChatGLM-6B have their features in our order."""
    name, form, model = golden
    vectors = vectors_of(name)
    keys, values = bind(model.config, model.params).prefix()
    theirs = vectors[f"{form}_layer0_prefix_key"][..., list(key_order(model.config))]
    np.testing.assert_allclose(keys[0], theirs, atol=1e-5, rtol=0)
    np.testing.assert_allclose(values[0], vectors[f"{form}_layer0_prefix_value"], atol=1e-5)


@pytest.mark.parametrize("stacked", [False, True])
def test_gradients_of_the_prefix(golden, stacked, tmp_path):
    """In both layouts of the layers, under the names of the checkpoint."""
    name, form, model = golden
    batch, _ = batch_of_model(name)
    config = model.config.with_compute(scan_layers=stacked)
    params = stack_layers(model.params) if stacked else model.params

    def loss(prefix):
        losses = token_losses(bind(config, {**params, "prefix": prefix}), batch)
        return jnp.sum(losses * batch.loss_weights) / jnp.sum(batch.loss_weights)

    gradient = {**model.params, "prefix": jax.jit(jax.grad(loss))(model.params["prefix"])}
    like = LanguageModel(model.config, gradient, origin=model._origin)
    like.save(tmp_path / "gradient", format="ptuning")
    ours, expected = load_file(tmp_path / "gradient/model.safetensors"), encoder(name, form, "grad")
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert np.abs(ours[key] - value).max() < 1e-4 * np.abs(value).max(), key


def test_decoding_with_a_cache_is_decoding_without(golden):
    """Three prompts of different lengths, in one batch; the prefix takes no slot of the cache."""
    name, _, model = golden
    if name == "chatglm1":
        prompts = [[9, 12, 301, 304], [40, 41, 42, 43, 44, 45, 301, 304], [7, 301, 304]]
    else:
        prompts = [[9, 12, 30], [40, 41, 42, 43, 44, 45, 46, 47], [7]]
    answers = model.generate(prompts, max_new_tokens=6, eos_ids=[])
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == continued(model, prompt, 6)
    bare = LanguageModel(model.config, model.params, origin=model._origin)
    bare.params = {**bare.params, "prefix": jax.tree.map(jnp.zeros_like, bare.params["prefix"])}
    assert bare.generate(prompts, max_new_tokens=6, eos_ids=[]) != answers


def test_a_blank_in_the_middle_is_filled_with_a_cache_as_without(tmp_path):
    path = write_ptuning(tmp_path / "prefix", "chatglm1", "proj")
    model = glm_jax.load(GOLDEN / "chatglm1", adapter=path)
    text = [9, 12, 300, 40, 41]
    (answer,) = model.fill_blanks(text, end_ids=[305], max_new_tokens=6)
    expected = continued(model, [*text, 304], 6, mask=2)
    assert answer == (expected[: expected.index(305)] if 305 in expected else expected)


def continued(model, ids, count, mask=None):
    """Greedy ids, each from the logits of the whole text before it."""
    ids, context, length = list(ids), len(ids) - 1, len(ids) + count
    if not model.config.fills_blanks:
        context = 0
    run = functools.partial(fixed_length, model, length, context)
    for _ in range(count):
        ids.append(int(np.argmax(run(context - 1 if mask is None else mask, ids))))
    return ids[-count:]


def fixed_length(model, length, context, mask, ids):
    """The logits behind `ids`, of which the first `context` attend to each other."""
    slots = np.arange(length)
    inside = slots < len(ids)
    positions = np.where(slots < context, slots, mask) if context else slots
    row = {
        "tokens": np.pad(ids, (0, length - len(ids))),
        "targets": 0 * slots,
        "loss_weights": 0.0 * slots,
        "positions": positions,
        "block_positions": np.maximum(slots - context + 1, 0) if context else 0 * slots,
        "attend_start": 0 * slots,
        "attend_end": np.where(inside, np.maximum(slots + 1, context), 0),
    }
    batch = {
        k: v[None].astype(np.float32 if k == "loss_weights" else np.int32) for k, v in row.items()
    }
    return np.asarray(model.logits(batch))[0, len(ids) - 1]
