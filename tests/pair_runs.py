"""Tiny runs on pairs of answers: a base, a file of pairs, and a config over both."""

import json
import signal
import time

import jax
import numpy as np

import glm_jax
from glm_jax.checkpoints.params import load_saved
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    PreferencesConfig,
    TrainConfig,
)
from glm_jax.models.params import create_params
from glm_jax.pipeline.references import with_reference
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point
from tests.tiny_run import change_fields
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES

COLOURS = ["red", "blue", "green", "white", "black", "grey", "pink", "gold", "brown", "dark"]
# What each kind of model is: its vocabulary, and how it reads.
KINDS = {
    "causal": ("chatglm3", PIECES, {"position_encoding": "rotary"}),
    "blanks": ("chatglm", ICE_TEXT, {"position_encoding": "rotary_block"}),
    "glm": (None, "bundled", {"position_encoding": "learned_block"}),
}


def write_pairs(path, count=20):
    """The colour that the prompt names is chosen, its neighbour rejected."""
    lines = [
        {
            "prompt": f"Say {COLOURS[n % 10]} {n}",
            "chosen": COLOURS[n % 10],
            "rejected": COLOURS[(n + 1) % 10],
            "by": n / 10,
        }
        for n in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def save_base(path, kind="causal", seed=5):
    """A tiny model with a vocabulary, as a Hugging Face directory or a checkpoint of ours."""
    tokenizer_kind, vocabulary, fields = KINDS[kind]
    tokenizer = glm_jax.load_tokenizer(vocabulary, kind=tokenizer_kind)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        embed_dim=16,
        num_heads=2,
        max_positions=128,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        initializer_range=0.1,
        **fields,
    )
    params = create_params(config.resolved(), make_mesh(MeshConfig()), seed)
    glm_jax.LanguageModel(config, params, tokenizer).save(path, format="orbax")
    return path


def config_of(base, pairs, loss="dpo", **sections):
    """A run of 4 steps of 4 pairs; `config_of(.., lora={"rank": 2})` changes sections."""
    config = Config(
        model=ModelConfig(
            dropout_rate=0.0, attention_dropout_rate=0.0, value_head=loss == "reward"
        ),
        data=DataConfig(
            source=str(pairs),
            store=str(pairs.with_name("store")),
            tokenizer=str(base),
            sequence_length=64,
            batch_size=4,
            eval_fraction=0.2,
        ),
        examples=ExamplesConfig(format="preferences"),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-2, warmup_steps=0, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=4,
            init_from=str(base),
            loss=loss,
            log_every=1,
            eval_every=0,
            eval_batches=1,
            checkpoint_every=2,
        ),
        preferences=PreferencesConfig(),
    )
    return change_fields(config, **sections)


def tune(config, workdir):
    """Trains, or goes on, as the command does; returns the exit status."""
    mesh = make_mesh(config.mesh)
    config, params = starting_point(config, workdir, mesh)
    # Of a loss that compares with none, the config stays as it is.
    config = with_reference(config, workdir, mesh, params)

    def batches(split, shard_index, num_shards):
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    return train(config, workdir, batches, tokenizer, params)


def end_alike_after_kills(start, folder, moments, begun, steps):
    """Checks that a run which was killed ends as one that was not, to the last bit.

    Args:
      start: begins a run in a workdir, as a process.
      folder: of the workdirs, "killed" and "whole".
      moments: steps whose checkpoint a kill waits for; 0: whatever `begun` says.
      begun: whether what comes before the first step is going on.
      steps: of the run.
    """
    for wanted in moments:
        run, limit = start(folder / "killed"), time.monotonic() + 300
        while run.poll() is None and time.monotonic() < limit:
            done = max(saved_steps(folder / "killed" / "checkpoints"), default=0)
            if done >= wanted if wanted else begun():
                break
            time.sleep(0.01)
        assert run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert start(folder / "killed").wait() == 0
    assert start(folder / "whole").wait() == 0
    whole, killed = (load_saved(folder / name).params for name in ("whole", "killed"))
    jax.tree.map(np.testing.assert_array_equal, whole, killed)
    both = [[row["loss"] for row in rows(folder / name)] for name in ("whole", "killed")]
    assert both[0] == both[1]
    assert len(both[0]) == steps


def rows(workdir):
    """The rows of metrics.jsonl of steps."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]
