"""The command: what it writes, how it stops, and that a killed run ends as if it had not been."""

import importlib.resources
import json
import lzma
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from glm_jax.checkpoints.params import load_params
from glm_jax.config import Config, TrainConfig
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.train import tasks_of
from glm_jax.training.run import freed_memory

pytestmark = pytest.mark.processes

NUM_STEPS = 8
# As users have them: nothing of the flags that tests run with.
FLAGS = "--xla_force_host_platform_device_count={devices}"
CONFIG = """
    from glm_jax.config import *

    def get_config():
        return Config(
            model=ModelConfig(vocab_size=7168, num_layers=2, embed_dim=16, num_heads=2,
                              max_positions=64),
            data=DataConfig(store={store!r}, sequence_length=64, batch_size=8, eval_fraction=0.1),
            objective=ObjectiveConfig(span_rate=0.5, sentence_rate=0.2, document_rate=0.3),
            optimizer=OptimizerConfig(peak_learning_rate=1e-2, warmup_steps=2),
            train=TrainConfig(num_steps=8, log_every=1, eval_every=4, eval_batches=2,
                              checkpoint_every=2, sample_every=4),
        )
"""
# On the path of a command, makes it a host without these packages.
BARE_HOST = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            absent = ("tensorflow", "seqio", "torch", "transformers", "tokenizers")
            if name.partition(".")[0] in absent:
                raise ImportError(f"{name} is not for this host")

    sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A config, and a small token store made without TensorFlow."""
    home = tmp_path_factory.mktemp("train")
    tokenizer = load_tokenizer("bundled")
    corpus = importlib.resources.files("glm_jax.bundled") / "corpus.en.xz"
    text = lzma.decompress(corpus.read_bytes())[:120_000].decode(errors="ignore")
    documents = tokenizer.encode_batch([p for p in text.split("\n\n") if p.strip()])
    with StoreWriter(
        home / "store",
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description={},
    ) as writer:
        writer.add("train", documents[:-20])
        writer.add("eval", documents[-20:])
    (home / "config.py").write_text(textwrap.dedent(CONFIG).format(store=str(home / "store")))
    (home / "bare").mkdir()
    (home / "bare" / "sitecustomize.py").write_text(textwrap.dedent(BARE_HOST))
    return home


@pytest.fixture
def start(home):
    """start(workdir, *overrides) -> Popen of the command, killed at the end."""
    started = []

    def start(workdir, *overrides, devices=1):
        command = [sys.executable, "-m", "glm_jax.train"]
        command += ["--config", str(home / "config.py"), "--workdir", str(workdir)]
        for override in overrides:
            command += ["--set", override]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(home / "bare")}
        environment["XLA_FLAGS"] = FLAGS.format(devices=devices)
        process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole_run(home, tmp_path_factory):
    """(workdir, standard output) of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, "-m", "glm_jax.train", "--config", str(home / "config.py")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(home / "bare")}
    environment["XLA_FLAGS"] = FLAGS.format(devices=1)
    done = subprocess.run(
        [*command, "--workdir", str(workdir)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def rows_of(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def wait_for_step(process, workdir, step, limit=120):
    deadline = time.monotonic() + limit
    while not any(row["step"] >= step for row in rows_of(workdir)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same(row):
    times = ("tokens_per_second", "goodput", "time/")
    return {name: value for name, value in row.items() if not name.startswith(times)}


def assert_ended_alike(workdir, whole):
    found, expected = rows_of(workdir), rows_of(whole)
    assert list(map(same, found)) == list(map(same, expected))
    _, params = load_params(workdir)
    _, expected_params = load_params(whole)
    jax.tree.map(np.testing.assert_array_equal, params, expected_params)


def test_what_a_run_leaves(whole_run):
    workdir, output = whole_run
    assert {path.name for path in workdir.iterdir()} == {
        "run.json",
        "tokenizer.model",
        "metrics.jsonl",
        "goodput.jsonl",
        "loss.png",
        "samples.txt",
        "data.json",
        "unigram.npz",
        "checkpoints",
    }
    rows = rows_of(workdir)
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == list(range(1, NUM_STEPS + 1))
    assert {"loss/span", "grad_norm", "learning_rate", "tokens_per_second"} <= set(training[0])
    evaluations = [row for row in rows if "eval/loss" in row]
    assert [row["step"] for row in evaluations] == [4, 8]
    for name in ("eval/loss/span", "eval/unigram_loss", "eval/unigram_loss/document"):
        assert 0 < evaluations[-1][name] < 20
    assert training[-1]["loss"] < training[0]["loss"]
    assert "parameters" in output
    # What is kept on CPU is said once, with its size and the way out.
    assert len(re.findall(r"^kept .* [KM]iB .* train.keep_freed_memory=False", output, re.M)) == (
        freed_memory._mallopt() is not None
    )
    samples = (workdir / "samples.txt").read_text()
    assert samples.count("step ") >= 2
    assert "original: " in samples


def test_a_killed_run_ends_as_one_that_was_not(start, whole_run, tmp_path):
    for step in (3, 5):
        process = start(tmp_path / "run")
        wait_for_step(process, tmp_path / "run", step)
        process.kill()
        process.communicate()
    output, errors = start(tmp_path / "run").communicate()
    assert "goes on after step" in output, errors
    assert_ended_alike(tmp_path / "run", whole_run[0])


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.nightly)],
)
def test_a_signal_saves_and_stops(start, whole_run, tmp_path, number, status):
    process = start(tmp_path / "run", "train.checkpoint_every=0")
    wait_for_step(process, tmp_path / "run", 1)
    process.send_signal(number)
    output, errors = process.communicate()
    assert process.returncode == status, errors
    assert f"stopped by {number.name}" in output
    assert re.search(r"is saved, \d+\.\d s after the signal; the same command goes on\n$", output)
    stopped_at = rows_of(tmp_path / "run")[-1]["step"]
    left = ["train.checkpoint_every=0", "train.keep_freed_memory=False"]
    output, errors = start(tmp_path / "run", *left).communicate()
    assert f"goes on after step {stopped_at}" in output, errors
    assert "kept" not in output
    assert_ended_alike(tmp_path / "run", whole_run[0])


def test_a_signal_before_the_first_step_is_answered(start, tmp_path):
    """As soon as there is a handler, which is before jax is imported."""
    process = start(tmp_path / "run")
    status = Path("/proc", str(process.pid), "status")
    if not status.exists():
        pytest.skip("needs /proc to see when the handler is there")
    while not int(re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.M)[1], 16) >> 14 & 1:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (143, "")
    assert errors == "stopped by SIGTERM with nothing to save; the same command goes on\n"
    assert not (tmp_path / "run").exists()


def test_a_workdir_has_one_owner_until_it_is_killed(start, whole_run, tmp_path):
    first = start(tmp_path / "run", "train.checkpoint_every=1")
    wait_for_step(first, tmp_path / "run", 1)
    first.send_signal(signal.SIGSTOP)
    _, errors = start(tmp_path / "run", "train.checkpoint_every=1").communicate()
    assert f"in use by process {first.pid} on host {socket.gethostname()} since 20" in errors
    assert errors.count("\n") == 1
    first.kill()
    first.communicate()
    assert start(tmp_path / "run", "train.checkpoint_every=1").wait() == 0
    assert_ended_alike(tmp_path / "run", whole_run[0])


def test_a_finished_run_is_left_alone(start, whole_run):
    workdir = whole_run[0]
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(workdir.rglob("*"))}
    process = start(workdir)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "finished" in output
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(workdir.rglob("*"))}
    assert after == before


def test_a_loss_that_is_not_finite_stops_the_run(start, tmp_path):
    process = start(
        tmp_path / "run",
        "optimizer.peak_learning_rate=1e30",
        "optimizer.warmup_steps=0",
        "optimizer.schedule=constant",
        "train.checkpoint_every=1",
    )
    _, errors = process.communicate()
    assert process.returncode == 1
    message = errors.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert "step 1" in message
    assert "learning rate 1e+30" in message
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.sequence_length=80"], ["model.max_positions", "80"]),
        (["model.vocab_size=100"], ["model.vocab_size", "7168"]),
        (["train.num_step=3"], ["train.num_step'", "num_steps"]),
        (["data.batch_size=9", "mesh.data=2"], ["mesh.data=2"]),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_written(start, tmp_path, overrides, said):
    process = start(tmp_path / "run", *overrides)
    output, errors = process.communicate()
    assert process.returncode == 2
    assert not output
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert all(word in errors for word in said), errors
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_config_is_refused(start, whole_run):
    before = (whole_run[0] / "run.json").read_bytes()
    process = start(whole_run[0], "model.num_layers=3", "train.seed=1", "train.log_every=5")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "model.num_layers was 2, is 3" in errors
    assert "train.seed was 0, is 1" in errors
    assert "log_every" not in errors
    assert (whole_run[0] / "run.json").read_bytes() == before


CAUSAL = [
    "model.position_encoding='rotary'",
    "model.norm='rms_norm'",
    "model.activation='swiglu'",
    "model.num_kv_heads=1",
    "model.tied_embeddings=False",
    "model.max_positions=128",
    "objective.span_rate=0",
    "objective.sentence_rate=0",
    "objective.document_rate=0",
    "objective.causal_rate=1",
]


@pytest.mark.nightly  # examples/continue_from_checkpoint.py goes on at each change
def test_a_causal_model_learns_and_another_run_goes_on_from_it(start, tmp_path):
    """From the loss of guessing, log 7168 = 8.88, down; then one override continues the model."""
    first = start(tmp_path / "first", *CAUSAL, "train.num_steps=40", "train.eval_every=0")
    out, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    assert "→←" in out, "samples are continuations"
    losses = [row["loss"] for row in rows_of(tmp_path / "first") if "loss" in row]
    assert abs(losses[0] - math.log(7168)) < 0.1
    assert losses[-1] < losses[0] - 1.0

    # What is asked for by hand is not dropped.
    init = f"train.init_from={tmp_path / 'first'}"
    other = start(tmp_path / "second", init, *CAUSAL[-4:], "model.num_layers=5")
    out, errors = other.communicate(timeout=300)
    assert other.returncode == 2
    assert "is a model with model.num_layers=2 (not 5); its shape is the run's" in errors
    assert not (tmp_path / "second").exists()

    # The shape is the model's: that of the config's file gives way, which is said.
    second = start(tmp_path / "second", init, *CAUSAL[-4:])
    out, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert "takes the place of the config's: " in errors
    assert f"with the parameters of {tmp_path / 'first'}" in out
    going_on = [row["loss"] for row in rows_of(tmp_path / "second") if "loss" in row]
    assert going_on[0] < losses[0] - 1.0
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert record["model"]["num_layers"] == 2
    assert record["model"]["position_encoding"] == "rotary"

    # The same command goes on with the second run, whose record has the shape.
    again = start(tmp_path / "second", init, *CAUSAL[-4:])
    out, errors = again.communicate(timeout=300)
    assert (again.returncode, errors) == (0, "")
    assert "is finished" in out


@pytest.mark.nightly
def test_a_run_moved_from_eight_devices_to_four_continues_its_curve(whole_run, start, tmp_path):
    """Four steps on a mesh of 2 x 2 x 2, four on one of 4: losses and parameters of one device."""
    curve = ("optimizer.decay_steps=8", "train.sample_every=0")
    eight = ("mesh.data=1", "mesh.fsdp=2", "mesh.tensor=2", "mesh.sequence=2", "train.num_steps=4")
    four = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=1", "train.num_steps=8")
    workdir = tmp_path / "run"
    for overrides, devices, last in ((eight, 8, 4), (four, 4, 8)):
        process = start(workdir, *curve, *overrides, devices=devices)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert f"done: {last} steps" in out
        assert f"{devices} x cpu" in out
    assert "goes on after step 4" in out
    found, expected = (
        {row["step"]: row["loss"] for row in rows_of(run) if "loss" in row}
        for run in (workdir, whole_run[0])
    )
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5)
    _, params = load_params(workdir)
    _, expected_params = load_params(whole_run[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), params, expected_params)


def test_help_documents_the_exit_status():
    done = subprocess.run(
        [sys.executable, "-m", "glm_jax.train", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for word in ("exit status", "143", "130", "--workdir", "--set"):
        assert word in done.stdout


def test_tasks_are_read_before_the_run_begins(tmp_path):
    lines = [{"text": "God said", "answer": "a"}, {"text": "He", "answer": "b"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = 'kind = "choice"\ndata = "d.jsonl"\nprompt = "{text} [MASK]"\nchoices = ["a", "b"]'
    (tmp_path / "words.toml").write_text(spec)

    def tasks(**settings):
        return tasks_of(Config(train=TrainConfig(**settings)), load_tokenizer("bundled"))

    assert tasks() is None
    found = tasks(
        eval_tasks=f"{tmp_path},last_word", keep_best=1, best_metric="eval/words/accuracy"
    )
    assert (found.metrics[0], found.registered) == ("eval/words/accuracy", ["last_word"])
    with pytest.raises(UserError, match=r"unknown task 'last_wrod' \(did you mean 'last_word'"):
        tasks(eval_tasks="last_wrod")
    with pytest.raises(UserError, match=r"is no metric of train\.eval_tasks"):
        tasks(keep_best=1, best_metric="eval/words/accuracy")
