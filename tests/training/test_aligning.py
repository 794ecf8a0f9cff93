"""Runs on pairs of answers: how they begin, go on after a stop, and end at a limit."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.checkpoints.params import load_saved
from glm_jax.errors import UserError
from tests.pair_runs import config_of, end_alike_after_kills, rows, save_base, tune, write_pairs

# What each kind of run changes.
KINDS = {
    "dpo": ("causal", "dpo", {}),
    "lora": ("causal", "dpo", {"lora": {"rank": 2, "dropout": 0.0}}),
    "blanks": ("blanks", "ipo", {"compute": {"scan_layers": True}}),
    "glm": ("glm", "dpo", {"preferences": {"reference_free": True, "length_normalized": True}}),
    "reward": ("causal", "reward", {"examples": {"margin_field": "by"}}),
    "reward_lora": (
        "causal",
        "reward",
        {"lora": {"rank": 2}, "train": {"trainable": "value_head/.*"}},
    ),
}


def prepared(folder, kind, **train):
    model, loss, sections = KINDS[kind]
    base, pairs = folder / f"base_{model}", folder / "files" / f"{model}.jsonl"
    if not base.exists():
        save_base(base, model)
        write_pairs(pairs)
    store = f"{model}_margins" if "examples" in sections else model
    sections = {**sections, "train": {**sections.get("train", {}), **train}}
    config = config_of(base, pairs, loss, data={"store": str(folder / store)}, **sections)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("aligned")


@pytest.mark.parametrize(
    "kind",
    [
        "dpo",
        *(
            pytest.param(one, marks=pytest.mark.nightly)
            for one in ("lora", "blanks", "glm", "reward", "reward_lora")
        ),
    ],
)
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(folder, tmp_path, kind):
    assert tune(prepared(folder, kind, num_steps=3), tmp_path / "whole") == 0
    assert tune(prepared(folder, kind, num_steps=2), tmp_path / "parts") == 0
    assert tune(prepared(folder, kind, num_steps=3), tmp_path / "parts") == 0
    whole, parts = (load_saved(tmp_path / name).params for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    found = rows(tmp_path / "parts")
    assert [row["loss"] for row in found] == [row["loss"] for row in rows(tmp_path / "whole")]
    if kind in ("dpo", "lora"):
        # The policy is the reference: log 2 to the last digits, and no divergence.
        assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert abs(found[0]["kl/k3"]) < 1e-6 < found[2]["kl/k3"]
        assert {"accuracy", "margin", "reward/chosen", "length/rejected"} <= set(found[0])
    if kind.startswith("reward"):
        assert "value_head" in glm_jax.load(tmp_path / "parts").params


def test_a_limit_ends_a_run_with_a_sentence(folder, tmp_path, capsys):
    config = prepared(folder, "dpo", num_steps=6, stop_above="kl/k3=1e-4")
    assert tune(config, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "above its limit 0.0001 in train.stop_above; " in said
    assert "error: kl/k3 is " in said
    # The limit may be raised, and the run goes on.
    assert len(rows(tmp_path / "run")) < 6
    raised = prepared(folder, "dpo", num_steps=6, stop_above="kl/k3=1e4, length/chosen=99")
    assert tune(raised, tmp_path / "run") == 0
    config = prepared(folder, "dpo", num_steps=6, stop_above="kl/k4=1")
    with pytest.raises(UserError, match=r"names 'kl/k4', which a step of this run does not have"):
        tune(config, tmp_path / "other")


@pytest.mark.processes
@pytest.mark.nightly
def test_a_killed_run_ends_as_one_that_was_not(folder, tmp_path):
    """kill -9 once while the reference is computed or the program compiled, and twice in steps."""
    script = (
        "import sys; from pathlib import Path; from tests.training.test_aligning import *; "
        "folder, workdir = map(Path, sys.argv[1:]); "
        "config = prepared(folder, 'dpo', num_steps=60, checkpoint_every=1); "
        "sys.exit(tune(config, workdir))"
    )
    prepared(tmp_path, "dpo")

    def start(workdir):
        command = [sys.executable, "-c", script, str(tmp_path), str(workdir)]
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        )

    end_alike_after_kills(
        start, tmp_path, (0, 3, 9), lambda: list(tmp_path.glob("causal.reference/.*.parts")), 60
    )


@pytest.mark.processes
@pytest.mark.nightly
def test_eight_devices_step_as_one_does():
    script = Path(__file__).with_name("pairs_on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["alike"] == 8
