"""Small models of random parameters behind the border, for tests of routes."""

import dataclasses
import functools

import jax
import numpy as np

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import bind, create_params
from glm_jax.serving.asking import Chosen, Scored
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer
from tests.serving.fakes import FakeDecoder


@functools.cache
def small_filler(**changes):
    """A model that fills blanks, with the bundled vocabulary; tests share it."""
    shape = {
        "vocab_size": 7168,
        "num_layers": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "max_positions": 64,
        "initializer_range": 0.4,
    }
    config = ModelConfig(**{**shape, **changes})
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    return LanguageModel(config, params, load_tokenizer())


def decoder_of(lm, context=None):
    """A `FakeDecoder` whose rows are decoded by a model, each for itself."""
    return FakeDecoder(functools.partial(_said, lm), context=context or lm.config.max_positions)


def _said(lm, ask):
    """What `tests.serving.fakes.script` makes, of a row of the model."""
    engine, limits = lm._engine(), ask.prompt.limits
    how = dataclasses.replace(ask.prompt.how, seed=ask.prompt.how.seed + ask.copy)
    slots = engine.start([dataclasses.replace(ask.prompt, how=how)])
    while True:
        logits = np.asarray(_program(engine.config)(engine.params, slots))
        answer, count = int(slots.index[0]), int(slots.count[0])
        slots = engine.run(slots, 1)
        id_ = int(slots.chosen[0, count])
        ends = id_ in limits.end_ids
        reason = None if bool(slots.running[0]) else "end" if ends else "length"
        yield Chosen(id_, answer, ends, _scored(logits, id_, ask.alternatives)), reason


@functools.cache
def _program(config):
    return jax.jit(lambda params, slots: jax.nn.log_softmax(slots.feed(bind(config, params))[0][0]))


def _scored(logs, id_, alternatives):
    if alternatives is None:
        return None
    best = np.argsort(-logs)[:alternatives]
    return Scored(id_, float(logs[id_]), tuple((int(one), float(logs[one])) for one in best))
