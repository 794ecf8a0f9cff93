"""The whole report of a tiny model that has learned nothing, on a store of its own."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from glm_jax.batch import SPAN, Batch, empty_fields
from glm_jax.config import Config, DataConfig, MeshConfig, ModelConfig, ObjectiveConfig
from glm_jax.config.published import PublishedOptions
from glm_jax.data.store import StoreWriter, TokenStore
from glm_jax.errors import UserError
from glm_jax.evaluation.infilling_report.held_out import held_out_texts, windows
from glm_jax.evaluation.infilling_report.report import infilling_report
from glm_jax.evaluation.rows import losses_of_targets
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("bundled")
T = 48
MODEL = ModelConfig(
    vocab_size=7168, num_layers=1, embed_dim=16, num_heads=2, max_positions=T, dropout_rate=0.0
)


def model(config):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, 0), TOKENIZER)


@pytest.fixture(scope="module")
def lm():
    return model(MODEL)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "store"
    with StoreWriter(
        directory,
        vocab_size=TOKENIZER.vocab_size,
        special=TOKENIZER.special,
        sentence_ends=TOKENIZER.sentence_ends(),
        description={},
    ) as writer:
        draws = np.random.default_rng(0)
        period = int(np.flatnonzero(TOKENIZER.sentence_ends())[0])
        for split in ("train", "eval"):
            texts = [draws.integers(300, 7000, 200) for _ in range(4)]
            for text in texts:
                text[::9] = period
            writer.add(split, texts)
    data = DataConfig(store=str(directory), sequence_length=512)
    return Config(MODEL, data, objective=ObjectiveConfig(mask_ratio=0.2))


@pytest.fixture(scope="module")
def report(lm, config):
    return infilling_report(lm, config, texts=8)


def test_the_loss_of_spans_is_that_of_their_rows_in_all_orders(report, lm, config):
    """By the texts themselves: every order of each, as rows of one batch."""
    store = TokenStore.open(config.data.store)
    found = windows(store.splits["eval"], 8, T)
    texts = held_out_texts(store, found, "eval", SPAN, config.objective, length=T, seed=0)
    assert len(texts) == 8
    content = json.loads(report.texts["report.json"])
    nats = targets = 0.0
    for text, row in zip(texts, content["texts"], strict=True):
        assert (row["spans"], row["window"]) == (len(text.spans), text.index)
        fields = empty_fields((1, T), TOKENIZER.special.pad)
        values = text.row(range(len(text.spans)), TOKENIZER.special, TOKENIZER.special.mask)
        for name, value in values.items():
            fields[name][0, : len(value)] = value
        losses = losses_of_targets(lm, Batch(**fields))
        assert row["left_to_right"] == pytest.approx(-losses.sum(), rel=1e-5)
        assert row["tokens"] == (losses > 0).sum()
        assert row["mean"] <= row["marginal"] + 1e-9
        nats, targets = nats - row["mean"], targets + row["tokens"]
    assert report["loss/span"] == pytest.approx(nats / targets)


def test_what_is_printed(report):
    assert set(report) == {
        *[f"loss/{name}" for name in ("span", "sentence", "document")],
        *[f"orders/{name}" for name in ("left_to_right", "right_to_left", "mean_over_orders")],
        *[f"orders/{name}" for name in ("marginal", "mean_worse_by", "standard_error")],
        *[f"orders/{name}" for name in ("spread_per_text", "texts")],
    }
    # It knows nothing: a uniform distribution over 7168 ids.
    for name in ("loss/span", "loss/sentence", "loss/document", "orders/marginal"):
        assert report[name] == pytest.approx(math.log(7168), abs=0.05)
    difference = report["orders/mean_over_orders"] - report["orders/left_to_right"]
    assert report["orders/mean_worse_by"] == pytest.approx(difference)
    assert report["orders/marginal"] <= report["orders/mean_over_orders"]


def test_the_files(report, tmp_path):
    report.write(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["losses.png", "orders.png", "report.json", "report.md"]
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    settings = content["settings"]
    # 512 slots are more than the model's positions; that is said.
    assert (settings["slots per row"], settings["texts"], settings["seed"]) == (T, 8, 0)
    assert set(content["tables"]) == {
        *["orders", "objective", "span length", "order in part B"],
        *["position in the document", "position in the window"],
    }
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"* slots per row: {T}" in page


def test_refusals(lm, config):
    causal = model(dataclasses.replace(MODEL, position_encoding="rotary", max_positions=512))
    with pytest.raises(UserError, match="'infilling_report' needs a model that fills blanks"):
        infilling_report(causal, config)
    for options in (PublishedOptions(masked_lm=True), PublishedOptions(sentinel_id=90)):
        objective = dataclasses.replace(config.objective, published=options)
        with pytest.raises(UserError, match=r"no rows of objective\.published\."):
            infilling_report(lm, dataclasses.replace(config, objective=objective))
    with pytest.raises(UserError, match=r"split must be one of \['train', 'eval'\]; got 'test'"):
        infilling_report(lm, config, split="test")
    other = LanguageModel(MODEL, lm.params, load_tokenizer("bundled"))
    special = dataclasses.replace(TOKENIZER.special, mask=5, gmask=4)
    other.tokenizer = type("Other", (), {"special": special, "vocab_size": 7168})()
    with pytest.raises(UserError, match=r"data\.tokenizer='bundled' is another tokenizer"):
        infilling_report(other, config)
