"""A config with examples end to end: stores, batches, training, and going on exactly."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax import cache, preview
from glm_jax.batch import ANSWER, OBJECTIVES, SPAN
from glm_jax.checkpoints.params import load_params
from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.data.record import check_data, record_data
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind, create_params
from glm_jax.pipeline.batches import source
from glm_jax.pipeline.examples import directory, opened, rebuild
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training.loop import train
from glm_jax.training.run.rewind import Rewind
from glm_jax.training.run.workdir import check_workdir, record_run
from tests.tokenizers import golden_chat

WORDS = ("red", "blue", "green", "tall", "small", "cold", "warm", "old", "new", "kind", "quick")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))


def talks(path, count=60, salt=0):
    """Conversations of one round and of two."""
    drawn = np.random.default_rng(salt)
    lines = []
    for number in range(count):
        first, second = drawn.choice(WORDS, 2, replace=False).tolist()
        said = [
            {"role": "user", "content": f"Say {first} and {second}."},
            {"role": "assistant", "content": f"{first} {second}"},
            {"role": "user", "content": f"Again, {number}?"},
            {"role": "assistant", "content": f"{second} {first}"},
        ]
        lines.append(json.dumps({"messages": said[: 2 + 2 * (number % 2)]}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def causal(tmp_path):
    """A tiny model in ChatGLM3's form."""
    folder = golden_chat.directory(
        tmp_path / "tok", golden_chat.PIECES, "tokenizer.model", glm_tokenizer={"kind": "chatglm3"}
    )
    return Config(
        model=ModelConfig(
            vocab_size=512,
            num_layers=2,
            embed_dim=32,
            num_heads=4,
            max_positions=96,
            position_encoding="rotary",
            norm="rms_norm",
            activation="swiglu",
        ),
        data=DataConfig(
            source=str(talks(tmp_path / "talks.jsonl")),
            tokenizer=str(folder),
            sequence_length=96,
            batch_size=4,
            eval_fraction=0.2,
        ),
        examples=ExamplesConfig(format="auto"),
        optimizer=OptimizerConfig(peak_learning_rate=1e-2, warmup_steps=1, schedule="constant"),
        train=TrainConfig(
            num_steps=4,
            log_every=1,
            eval_every=4,
            eval_batches=1,
            checkpoint_every=2,
            sample_every=0,
        ),
    )


def blank(tmp_path):
    """A tiny GLM with the bundled vocabulary, and texts mixed in."""
    (tmp_path / "text.txt").write_text("\n\n".join(f"A line of text, {n}." * 9 for n in range(40)))
    examples = ExamplesConfig(
        format="messages",
        loss_on="assistant",
        pretraining_rate=0.25,
        pretraining_source=str(tmp_path / "text.txt"),
    )
    whole = causal(tmp_path)
    return dataclasses.replace(
        whole,
        model=ModelConfig(
            vocab_size=7168, num_layers=2, embed_dim=16, num_heads=2, max_positions=96
        ),
        data=dataclasses.replace(whole.data, tokenizer="bundled"),
        examples=examples,
    )


def run(config, workdir, rewind=None):
    """Trains; the parameters, the losses by step, and the last evaluation."""
    tokenizer = load_tokenizer(config.data.tokenizer)

    def open_batches(split, shard_index, num_shards):
        return glm_jax.batches(config, split, shard_index, num_shards)

    assert train(config, workdir, open_batches, tokenizer, rewind=rewind) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    held_out = [row for row in rows if "eval/loss" in row][-1]
    return load_params(workdir)[1], losses, held_out


@pytest.mark.parametrize("made", [pytest.param(causal, marks=pytest.mark.nightly), blank])
def test_training_goes_on_exactly(tmp_path, made):
    config = made(tmp_path)
    params, losses, held_out = run(config, tmp_path / "run")
    assert len(jax.tree.leaves(params)) > 5
    again, same_losses, same_held_out = run(config, tmp_path / "run", Rewind(2, 0))
    assert same_losses == losses
    assert sorted(losses) == [1, 2, 3, 4]
    assert same_held_out == held_out
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert np.isfinite(held_out["eval/loss/answer"])
    assert np.isfinite(held_out["eval/unigram_loss/answer"])
    assert ("eval/loss/span" in held_out) == (made is blank)


def test_batches_are_examples_and_texts(tmp_path):
    config = blank(tmp_path)
    stream = glm_jax.batches(config)
    counts = dict.fromkeys(OBJECTIVES, 0)
    rows = 0
    for _ in range(20):
        batch = next(stream)
        for objective in batch.objective.max(axis=1):
            counts[{SPAN: "span", ANSWER: "answer"}[objective]] += 1
        rows += len(batch.tokens)
    assert (counts["span"], counts["answer"]) == (20, 60)
    assert (stream.statistics["rows/pretraining"], stream.statistics["rows/examples"]) == (20, 60)
    assert set(stream.data) == {"examples", "pretraining"}
    both = [glm_jax.batches(config, shard_index=i, num_shards=2) for i in (0, 1)]
    again = glm_jax.batches(config)
    np.testing.assert_array_equal(
        np.concatenate([next(one).tokens for one in both]), next(again).tokens
    )


def test_other_examples_are_refused_and_a_copied_store_is_not(tmp_path):
    config, workdir = causal(tmp_path), tmp_path / "run"
    tokenizer = load_tokenizer(config.data.tokenizer)
    record_run(workdir, config, tokenizer)
    record_data(workdir, glm_jax.batches(config).data, tokenizer, 0, None)
    copied = tmp_path / "elsewhere" / "store"
    shutil.copytree(directory(config), copied)
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, store=str(copied)))
    check_workdir(workdir, moved)
    assert check_data(workdir, glm_jax.batches(moved).data, tokenizer, False) is None
    talks(tmp_path / "talks.jsonl", salt=1)
    with pytest.raises(UserError, match=r"data of the workdir .* has changed: file '.*talks"):
        check_data(workdir, glm_jax.batches(config).data, tokenizer, False)
    with pytest.raises(UserError, match=r"was made from file '.*talks\.jsonl' has changed"):
        opened(moved)
    last = dataclasses.replace(config, examples=ExamplesConfig(format="auto", loss_on="last"))
    with pytest.raises(UserError, match=r"another config: examples\.loss_on was 'published'"):
        check_workdir(workdir, last)
    talks(tmp_path / "talks.jsonl")
    with pytest.raises(UserError, match=r"examples\.loss_on was 'published', is 'last'"):
        check_data(workdir, glm_jax.batches(last).data, tokenizer, False)


def test_a_store_is_compared_with_the_config(tmp_path):
    config = causal(tmp_path)
    stored = dataclasses.replace(
        config, data=dataclasses.replace(config.data, store=str(tmp_path / "store"))
    )
    opened(stored)
    # A host that has the store needs no files.
    (tmp_path / "talks.jsonl").unlink()
    opened(stored)
    for change, message in (
        ({"examples": ExamplesConfig(format="auto", loss_on="last")},
         r"examples\.loss_on='published', not 'last'"),
        ({"data": dataclasses.replace(stored.data, eval_fraction=0.5)},
         r"data\.eval_fraction=0\.2, not 0\.5"),
        ({"data": dataclasses.replace(stored.data, tokenizer="bundled"),
          "model": ModelConfig()}, "made with another tokenizer"),
        ({"data": dataclasses.replace(stored.data, source="other/*.jsonl")},
         r"data\.source='.*talks\.jsonl', not 'other"),
        ({"model": dataclasses.replace(stored.model, vocab_size=100)}, "at least the tokenizer's"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            opened(dataclasses.replace(stored, **change))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a store of examples; remove it by hand"):
        rebuild(config, tmp_path / "text")


def test_a_row_that_cuts_all_answers_ends_the_run(tmp_path):
    config = causal(tmp_path)
    short = dataclasses.replace(config, data=dataclasses.replace(config.data, sequence_length=16))
    with pytest.raises(UserError, match=r"nothing is learnt from the split 'train': train: \d+ ex"):
        source(short, "train")


def command(monkeypatch, main, config, *arguments):
    monkeypatch.setattr("glm_jax.cli.config_from", lambda _: config)
    monkeypatch.setattr("sys.argv", ["command", "--config", "x", *arguments])
    return main()


def test_cache_and_preview(tmp_path, monkeypatch, capsys):
    config = blank(tmp_path)
    command(monkeypatch, cache.main, config)
    built = capsys.readouterr().out.splitlines()
    assert len(built) == 2
    assert built[0].startswith("built: ")
    assert " examples " in built[0]
    assert " documents " in built[1]
    command(monkeypatch, cache.main, config)
    assert capsys.readouterr().out.startswith("there already: ")
    command(monkeypatch, cache.main, config, "--force")
    assert capsys.readouterr().out.startswith("built: ")
    alone = causal(tmp_path)
    command(monkeypatch, preview.main, alone, "--num_examples", "2")
    out = capsys.readouterr().out
    assert out.count("== answer: ") == 2
    assert "<|assistant|>«\\n " in out
    assert "</s>»" in out
    assert "\x1b" not in out
    command(monkeypatch, preview.main, config, "--colour", "always")
    out = capsys.readouterr().out
    assert "== span: " in out
    assert "[gMASK]<|startofpiece|>\x1b[1;32m" in out
    assert "examples per row" in out


def test_what_a_model_is_comes_from_the_one_that_is_tuned(tmp_path, monkeypatch, capsys):
    """ChatGLM-6B's answers fill a blank, or follow where the model reads from left to right."""
    folder = golden_chat.directory(
        tmp_path / "ice", golden_chat.ICE_TEXT, "ice_text.model", config={"model_type": "chatglm"}
    )
    config = causal(tmp_path)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=1024),
        data=dataclasses.replace(config.data, tokenizer=str(folder)),
    )
    opened(config)
    workdir = tmp_path / "run"
    record_run(workdir, config, load_tokenizer(folder))
    (workdir / "checkpoints" / "1").mkdir(parents=True)
    tuned = dataclasses.replace(
        config, model=ModelConfig(), train=TrainConfig(init_from=str(workdir))
    )
    assert directory(tuned) != directory(config)
    command(monkeypatch, cache.main, tuned)
    assert capsys.readouterr().out.startswith(f"there already: {directory(config)}")
    command(monkeypatch, preview.main, tuned)
    assert "part A" not in capsys.readouterr().out.partition("Rows of your examples")[2]


def losses_of_examples(config, params):
    """The loss of each target, by the tokens of its example up to it, and the number of rows."""
    stream = source(config, "train").sequence(shuffle=False, repeat=False)
    batch, _ = stream(np.arange(stream.num_rows))
    model = bind(config.resolved_model, params)
    losses = np.asarray(jax.jit(functools.partial(token_losses, model))(batch))
    found = {}
    for row, slot in zip(*np.nonzero(batch.loss_weights), strict=True):
        start = batch.attend_start[row, slot]
        found[tuple(batch.tokens[row, start : slot + 1])] = losses[row, slot]
    return found, stream.num_rows


@pytest.mark.parametrize("made", [causal, blank])
def test_a_packed_example_has_the_loss_that_it_has_alone(tmp_path, made):
    config = made(tmp_path)
    examples = dataclasses.replace(
        config.examples, pretraining_rate=0.0, pretraining_source=None, loss_on="last"
    )
    config = dataclasses.replace(config, examples=examples)
    params = create_params(config.resolved_model, make_mesh(config.mesh), seed=0)
    alone = dataclasses.replace(config, examples=dataclasses.replace(examples, packed=False))
    packed, rows = losses_of_examples(config, params)
    single, more = losses_of_examples(alone, params)
    assert more > 1.5 * rows
    assert packed.keys() == single.keys()
    keys = list(packed)
    np.testing.assert_allclose(
        [packed[key] for key in keys], [single[key] for key in keys], rtol=2e-5, atol=2e-5
    )
