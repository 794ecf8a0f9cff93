"""Accuracy on held-out clozes against the loss that training has of the same fillings."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from glm_jax.batch import Batch, empty_fields
from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.building import objects_of
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.errors import UserError
from glm_jax.evaluation.held_out_cloze import accuracy
from glm_jax.evaluation.registry import TASKS, Request
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.pipeline.batches import source
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("bundled")
T = 48
BLOCK = ModelConfig(
    vocab_size=7168,
    num_layers=1,
    embed_dim=16,
    num_heads=2,
    max_positions=T,
    dropout_rate=0.0,
    initializer_range=0.5,
)
CAUSAL = dataclasses.replace(BLOCK, position_encoding="rotary")
WORDS = {"good": "great", "bad": "a terrible waste of time"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clozes")
    path = directory / "a.jsonl"
    lines = [
        {"text": f"The day number {n} was long.", "label": ["good", "bad"][n % 2]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Config(
        BLOCK,
        DataConfig(
            source=str(path),
            store=str(directory / "store"),
            sequence_length=T,
            batch_size=2,
            eval_fraction=0.3,
        ),
        examples=ExamplesConfig(format="cloze", pattern="{text} It was [MASK].", verbalizers=WORDS),
    )


def model(config):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, 0), TOKENIZER)


def training_loss(lm, example):
    """The sum of the cross entropies that training has of an example."""
    fields, size = empty_fields((1, T), TOKENIZER.special.pad), len(example)
    for name in ("tokens", "targets", "positions", "block_positions"):
        fields[name][0, :size] = getattr(example, name)
    fields["loss_weights"][0, :size] = example.learnt
    ends = np.maximum(example.prefix, np.arange(size) + 1)
    fields["attend_end"][0, :size] = ends
    return float(lm.loss(Batch(**fields))) * example.learnt.sum()


@pytest.mark.parametrize("shape", [BLOCK, CAUSAL], ids=["fills blanks", "causal"])
def test_the_best_candidate_is_the_one_with_the_least_training_loss(config, shape):
    lm = model(shape)
    maker = ClozeMaker(config.examples, TOKENIZER, shape.fills_blanks)
    held = objects_of(config, maker, "eval")
    sums, means = [], []
    for _, record in held:
        losses, sizes = [], []
        for label in WORDS:
            (example,) = maker.examples({**record, "label": label})
            losses.append(training_loss(lm, example))
            sizes.append(example.learnt.sum())
        right = list(WORDS).index(record["label"])
        sums.append(np.argmin(losses) == right)
        means.append(np.argmin(np.array(losses) / sizes) == right)
    found = accuracy(lm, config)
    assert found["accuracy"] == np.mean(sums)
    assert found["accuracy_per_token"] == np.mean(means)
    assert (found["chance"], found["examples"]) == (0.5, len(held))
    share = np.mean(sums)
    assert found["standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / (len(held) - 1)))


def test_the_split_is_that_of_training(config):
    """The store's held-out examples, in their order, are those that are asked."""
    maker = ClozeMaker(config.examples, TOKENIZER, True)
    held = objects_of(config, maker, "eval")
    assert 5 < len(held) < 20
    assert held[0][0].startswith(config.data.source)
    store = source(config, "eval").builders[0].store
    made = [maker.examples(record)[0].tokens.tolist() for _, record in held]
    assert made == [store.splits["eval"][i].tokens.tolist() for i in range(len(held))]


def test_the_task(config):
    found = TASKS["held_out_cloze"](model(BLOCK), Request(config, num_examples=4))
    assert found["examples"] == 4.0


def test_refusals(config):
    lm = model(BLOCK)
    with pytest.raises(UserError, match=r"examples.format='cloze'; the config has None"):
        accuracy(lm, Config(BLOCK))
    alone = dataclasses.replace(config.examples, verbalizers=None)
    with pytest.raises(UserError, match=r"no held-out example has candidates"):
        accuracy(lm, dataclasses.replace(config, examples=alone))
    without = LanguageModel(BLOCK, lm.params)
    with pytest.raises(UserError, match="needs a tokenizer"):
        accuracy(without, config)
