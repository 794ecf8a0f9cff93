"""The loop in this process; tests/test_train.py kills it."""

import json

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.training import loop
from glm_jax.training.checkpoints import saved_steps
from glm_jax.training.loop import train


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def short(config, change):
    """Four steps, nothing but a log between them."""
    for name, value in (("num_steps", 4), ("eval_every", 0), ("checkpoint_every", 0)):
        config = change(config, f"train.{name}", value)
    return config


def test_intervals_of_0_leave_only_the_end(short, open_batches, tokenizer, tmp_path, capsys):
    assert train(short, tmp_path / "run", open_batches, tokenizer) == 0
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval/loss" in row] == [4]
    assert saved_steps(tmp_path / "run" / "checkpoints") == [4]
    assert (tmp_path / "run" / "samples.txt").read_text().startswith("step 4\n")
    said = capsys.readouterr().out
    assert "7,904 parameters: embedding 1,312, attention 2,176, mlp 4,256, norms 160" in said
    assert "parameters 30.9 KiB, optimizer 61.8 KiB, gradients 30.9 KiB" in said
    assert "4 rows x 24 places = 96 tokens" in said
    assert "64 rows an epoch" in said
    assert train(short, tmp_path / "run", open_batches, tokenizer) == 0
    assert "finished" in capsys.readouterr().out
    assert rows_of(tmp_path / "run") == rows


def test_log_every(short, change, open_batches, tokenizer, tmp_path):
    train(change(short, "train.log_every", 3), tmp_path, open_batches, tokenizer)
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == [3, 4]


def test_more_steps_of_a_constant_schedule(short, change, open_batches, tokenizer, tmp_path):
    short = change(short, "optimizer.schedule", "constant")
    for steps, workdir in ((2, "a"), (4, "a"), (4, "b")):
        config = change(short, "train.num_steps", steps)
        assert train(config, tmp_path / workdir, open_batches, tokenizer) == 0
    losses = [[row["loss"] for row in rows_of(tmp_path / name) if "loss" in row] for name in "ab"]
    assert losses[0] == losses[1]


def test_a_loss_that_is_not_finite(
    short, change, open_batches, tokenizer, tmp_path, capsys, monkeypatch
):
    """The checkpoint of step 2 is good and stays; nothing of step 3 is kept."""
    real = loop.compile_train_step

    def broken(config, mesh):
        compiled = real(config, mesh)

        def step(state, batch):
            state, metrics = compiled(state, batch)
            return state, metrics | ({"loss": np.nan} if int(state.step) == 3 else {})

        return step

    monkeypatch.setattr(loop, "compile_train_step", broken)
    config = change(short, "train.checkpoint_every", 1)
    assert train(config, tmp_path, open_batches, tokenizer) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: loss nan")
    assert "at step 3, learning rate" in message
    assert message.endswith("the newest checkpoint is that of step 2")
    assert saved_steps(tmp_path / "checkpoints") == [1, 2]
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2]


def test_nothing_is_written_where_data_refuses(short, tokenizer, tmp_path):
    def batches(split, shard_index, num_shards):
        raise UserError("no such corpus")

    with pytest.raises(UserError, match="no such corpus"):
        train(short, tmp_path / "run", batches, tokenizer)
    assert not (tmp_path / "run").exists()
