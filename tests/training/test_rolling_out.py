"""Runs over rollouts: how they go on after a stop, what ends them, and that they learn."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.checkpoints.params import load_saved
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.errors import UserError
from tests.free_port import joining
from tests.pair_runs import end_alike_after_kills, rows
from tests.rollout_runs import prepared, tune, write_files

# What each kind of run changes.
KINDS = {
    "grpo": ("causal", "grpo", {"policy": {"kl_beta": 0.05}}),
    "lora": (
        "causal",
        "grpo",
        {"lora": {"rank": 2, "dropout": 0.0}, "policy": {"reference": True}},
    ),
    "blanks": ("blanks", "grpo", {"rollouts": {"passes": 2}}),
    "glm": (
        "glm",
        "grpo",
        {
            "policy": {"loss_per": "longest", "entropy_bonus": 0.01},
            "rollouts": {"truncated": "mask"},
        },
    ),
    "ppo": ("causal", "ppo", {"policy": {"kl_beta": 0.05}, "rollouts": {"batches": 2}}),
    "ppo_lora": (
        "causal",
        "ppo",
        {
            "lora": {"rank": 2, "dropout": 0.0},
            "train": {"trainable": "value_head/.*"},
            "policy": {"kl_beta": 0.05, "kl_in": "loss"},
            "compute": {"scan_layers": True},
        },
    ),
}


def config_of(folder, kind, **train):
    model, loss, sections = KINDS[kind]
    sections = {**sections, "train": {**sections.get("train", {}), **train}}
    return prepared(folder, model, loss, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rolled_out")


@pytest.mark.parametrize(
    "kind", ["grpo", *(pytest.param(one, marks=pytest.mark.nightly) for one in [*KINDS][1:])]
)
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(folder, tmp_path, kind):
    assert tune(config_of(folder, kind, num_steps=4), tmp_path / "whole") == 0
    assert tune(config_of(folder, kind, num_steps=2), tmp_path / "parts") == 0
    assert tune(config_of(folder, kind, num_steps=4), tmp_path / "parts") == 0
    whole, parts = (load_saved(tmp_path / name).params for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    found = rows(tmp_path / "parts")
    names = ("loss", "reward", "length/answer", "entropy", "kl/old", "clipped/low", "truncated")
    for name in names:
        assert [row[name] for row in found] == [row[name] for row in rows(tmp_path / "whole")]
    assert {"time/rolling_out", "reward/deviation", "rollouts/log_prob_error"} <= set(found[0])
    if kind in ("grpo", "lora"):
        # The policy is the reference at first, and the one that answers at every step.
        assert abs(found[0]["kl/k3"]) < 1e-6 < found[3]["kl/k3"]
        assert [row["ratio"] for row in found] == pytest.approx([1.0] * 4, abs=1e-5)
    if kind == "blanks":
        # The second pass is over answers of the policy before the first.
        assert [abs(row["kl/old"]) > 1e-7 for row in found] == [False, True, False, True]
    if kind.startswith("ppo"):
        assert "loss/value" in found[0]
        assert "value_head" in glm_jax.load(tmp_path / "parts").params


def test_an_evaluation_and_samples_are_of_held_out_prompts(folder, tmp_path):
    config = config_of(folder, "grpo", num_steps=2, eval_every=2, sample_every=2)
    assert tune(config, tmp_path / "run") == 0
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert any("eval/reward" in row for row in lines)
    assert "    reward: " in (tmp_path / "run" / "samples.txt").read_text()
    assert (tmp_path / "run" / "loss.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("length/answer=0.5", "length/answer is .*, above its limit 0.5 in train.stop_above"),
        ("kl/k2=1e-9", "kl/k2 is .*, above its limit 1e-09"),
    ],
)
def test_a_run_whose_answers_or_divergence_run_away_stops(folder, tmp_path, capsys, limit, said):
    config = config_of(folder, "grpo", num_steps=8, stop_above=limit)
    assert tune(config, tmp_path / "run") == 1
    assert re.search(said, capsys.readouterr().err)
    assert len(rows(tmp_path / "run")) < 8


@pytest.mark.parametrize("name", ["raises", "nothing", "dies"])
def test_a_reward_that_fails_ends_the_run_with_a_sentence(folder, tmp_path, name):
    file = folder / "files" / "rewards.py"
    config = prepared(folder, rollouts={"reward": f"{file}:{name}"})
    with pytest.raises(UserError, match=f"rollouts.reward: {name} in"):
        tune(config, tmp_path / "run")
    assert not saved_steps(tmp_path / "run" / "checkpoints")


def test_a_reference_that_is_another_is_refused(folder, tmp_path):
    assert tune(config_of(folder, "grpo", num_steps=2), tmp_path / "run") == 0
    place = tmp_path / "run" / "reference.json"
    place.write_text('{"fingerprint": "0123456789ab"}')
    with pytest.raises(UserError, match=r"held to another model than train.init_from has now"):
        tune(config_of(folder, "grpo", num_steps=4), tmp_path / "run")


@pytest.mark.processes
@pytest.mark.nightly
def test_a_killed_run_ends_as_one_that_was_not(folder, tmp_path):
    """kill -9 while programs are compiled, and twice in the middle of cycles."""
    script = (
        "import sys; from pathlib import Path; from tests.training.test_rolling_out import *; "
        "folder, workdir = map(Path, sys.argv[1:]); "
        "config = config_of(folder, 'blanks', num_steps=40, checkpoint_every=2); "
        "sys.exit(tune(config, workdir))"
    )
    config_of(tmp_path, "blanks")

    def start(workdir):
        command = [sys.executable, "-c", script, str(tmp_path), str(workdir)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(command, env=environment)

    end_alike_after_kills(
        start, tmp_path, (0, 4, 12), (tmp_path / "killed" / "run.json").exists, 40
    )


@pytest.mark.processes
@pytest.mark.nightly
def test_eight_devices_roll_out_as_one_does():
    script = Path(__file__).with_name("rollouts_on_eight_devices.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["alike"] == 6


@pytest.mark.processes
@pytest.mark.nightly
def test_two_processes_roll_out_as_one_does(tmp_path):
    """Parameters are split over both; each asks for its share of the rewards."""
    prompts = write_files(tmp_path / "files")
    config = tmp_path / "config.py"
    config.write_text(
        "import dataclasses\n"
        "from pathlib import Path\n"
        "from glm_jax.config import MeshConfig, ModelConfig\n"
        "from tests.rollout_runs import config_of\n\n\n"
        "def get_config():\n"
        f"    made = config_of('bundled', Path({str(prompts)!r}), mesh={{'data': 1, 'fsdp': -1}})\n"
        "    model = ModelConfig(num_layers=2, embed_dim=32, num_heads=2, vocab_size=7168,\n"
        "                        dropout_rate=0.0, attention_dropout_rate=0.0)\n"
        "    changed = {'init_from': None, 'eval_every': 2, 'sample_every': 4}\n"
        "    train = dataclasses.replace(made.train, **changed)\n"
        "    return dataclasses.replace(made, model=model, train=train)\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}

    def start(workdir, *arguments):
        command = [sys.executable, "-m", "glm_jax.train", "--config", str(config)]
        command += ["--workdir", str(tmp_path / workdir), *arguments]
        return subprocess.Popen(command, env=environment)

    assert start("one").wait() == 0
    both = [start("two", *arguments) for arguments in joining(2)]
    assert [process.wait() for process in both] == [0, 0]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["reward"] for row in two] == [row["reward"] for row in one]
    np.testing.assert_allclose(
        [row["loss"] for row in two], [row["loss"] for row in one], atol=1e-5
    )
    samples = [(tmp_path / name / "samples.txt").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]
