"""A run whose workdir lies in a bucket is that of a local one, and outlives what a local one does.

Against fake-gcs-server; the last test starts commands and kills them.
"""

import importlib.resources
import json
import lzma
import os
import re
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.buckets import BucketPath
from glm_jax.checkpoints.params import load_params
from glm_jax.checkpoints.retention import saved_steps
from glm_jax.data.store import StoreWriter
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training import loop
from glm_jax.training.checkpoints import Checkpoints
from glm_jax.training.loop import train
from glm_jax.training.run.owner import OWNER
from glm_jax.training.run.owner_in_bucket import claimed
from glm_jax.training.run.rewind import Rewind
from tests.bucket_server import flip, led_to, refusing
from tests.training.test_loop import on_two_hosts

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))


def rows_of(workdir):
    """Without what differs from run to run."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    times = ("tokens_per_second", "time/", "goodput")
    return [{k: v for k, v in row.items() if not k.startswith(times)} for row in rows]


def assert_same_runs(one, other):
    assert rows_of(one) == rows_of(other)
    assert (one / "samples.txt").read_text() == (other / "samples.txt").read_text()
    jax.tree.map(np.testing.assert_array_equal, load_params(one)[1], load_params(other)[1])


@pytest.fixture
def local(config, open_batches, tokenizer, tmp_path):
    """A run that ended undisturbed on this machine."""
    assert train(config, tmp_path / "local", open_batches, tokenizer) == 0
    return tmp_path / "local"


@pytest.fixture
def workdir(bucket):
    return bucket / "runs/one"


def test_it_is_the_run_of_a_local_workdir(
    local, workdir, config, open_batches, tokenizer, mesh, capsys
):
    assert train(config, str(workdir), open_batches, tokenizer) == 0
    assert f"; see {workdir}\n" in capsys.readouterr().out
    assert_same_runs(workdir, local)
    assert {path.name for path in workdir.iterdir()} == {path.name for path in local.iterdir()}
    assert saved_steps(workdir / "checkpoints") == saved_steps(local / "checkpoints") == [4, 6]
    # Nothing of the steps that are gone.
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"4", "6"}
    assert train(config, str(workdir), open_batches, tokenizer) == 0
    assert "is finished: it has a checkpoint of step 6" in capsys.readouterr().out


@pytest.mark.nightly
def test_a_damaged_object_is_found_and_the_step_before_it_goes_on(
    local, workdir, config, open_batches, tokenizer, mesh, caplog
):
    assert train(config, workdir, open_batches, tokenizer) == 0
    (large,) = [
        path
        for name in (workdir / "checkpoints/6").below()
        if name.startswith("params/d/") and (path := workdir / "checkpoints/6" / name)
    ]
    flip(large)
    with pytest.raises(UserError, match=r"checkpoint 6 cannot be read: gs://.*checksum differs"):
        load_params(workdir)
    state, _ = Checkpoints(workdir / "checkpoints", config, mesh).restore()
    assert int(state.step) == 4
    assert f"checkpoint 6 cannot be read: {large} is not what was saved" in caplog.text
    assert saved_steps(workdir / "checkpoints") == [4]
    assert (workdir / "checkpoints/damaged-6/manifest.json").exists()
    assert train(config, workdir, open_batches, tokenizer) == 0
    assert_same_runs(workdir, local)


def test_a_save_that_was_killed_is_no_step(local, workdir, config, open_batches, tokenizer, caplog):
    """In a bucket it has its name from the first object on, and these come last."""
    assert train(config, workdir, open_batches, tokenizer) == 0
    for name in ("manifest.json", "_CHECKPOINT_METADATA", "commit_success.txt"):
        (workdir / "checkpoints/6" / name).unlink()
    assert saved_steps(workdir / "checkpoints") == [4]
    assert train(config, workdir, open_batches, tokenizer) == 0
    assert "checkpoint 6 was not finished; it is now unfinished-6" in caplog.text
    assert_same_runs(workdir, local)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"4", "6"}


def test_rows_are_never_behind_the_newest_checkpoint(
    workdir, config, open_batches, tokenizer, monkeypatch
):
    """Whoever kills it between the two finds rows that no checkpoint has, and no hole."""
    seen = []
    save = Checkpoints.save

    def look(checkpoints, state, *others):
        seen.append((int(state.step), rows_of(workdir)[-1]["step"]))
        save(checkpoints, state, *others)

    monkeypatch.setattr(Checkpoints, "save", look)
    assert train(config, workdir, open_batches, tokenizer) == 0
    assert seen == [(2, 2), (4, 4), (6, 6)]


@pytest.mark.nightly
def test_going_back_moves_what_came_after(workdir, config, change, open_batches, tokenizer):
    config = change(config, "train.keep_checkpoints", 9)
    assert train(config, workdir, open_batches, tokenizer) == 0
    before = rows_of(workdir)
    assert train(config, workdir, open_batches, tokenizer, rewind=Rewind(2, 3)) == 0
    assert saved_steps(workdir / "rewound/1/checkpoints") == [4, 6]
    assert rows_of(workdir / "rewound/1") == before
    assert json.loads((workdir / "skipped.json").read_text()) == [[2, 5]]
    losses, others = (
        [row["loss"] for row in rows if "loss" in row] for rows in (rows_of(workdir), before)
    )
    assert losses[:2] == others[:2]
    assert losses[2] != others[2]


def test_a_right_that_is_lost_midway_is_status_3(
    workdir, config, open_batches, tokenizer, monkeypatch, capsys
):
    write = BucketPath.write_bytes

    def lost(path, content):
        if path.name == ".probe" and saved_steps(workdir / "checkpoints"):
            raise PermissionError(13, "the account has no right to do this there", str(path))
        write(path, content)

    monkeypatch.setattr(BucketPath, "write_bytes", lost)
    assert train(config, workdir, open_batches, tokenizer) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: checkpoint 4 could not be written: the account has no right to do this there; the "
        "newest checkpoint is that of step 2"
    )
    assert not (workdir / OWNER).exists()


@pytest.mark.parametrize(
    ("code", "said"), [(401, "no credentials that it takes"), (403, "no right to do this")]
)
def test_a_bucket_that_refuses_is_one_sentence_and_nothing_runs(
    bucket_server, config, open_batches, tokenizer, monkeypatch, code, said
):
    monkeypatch.setattr(loop, "create_state", None)  # would raise
    with refusing(code) as url, led_to(url), pytest.raises(UserError, match=said):
        train(config, "gs://b/run", open_batches, tokenizer)


def test_the_command_ends_with_status_2_and_one_line(bucket_server, home):
    with refusing(403) as url, led_to(url):
        process = start(home, "gs://b/run")
        output, errors = process.communicate()
    assert (process.returncode, output) == (2, "")
    assert re.fullmatch(
        r"error: 'gs://b/run.*' cannot be used: the account has no right .*\n", errors
    )


def test_a_workdir_in_use_is_refused(workdir, config, open_batches, tokenizer):
    with claimed(workdir / OWNER), pytest.raises(UserError, match=r"in use by process"):
        train(config, workdir, open_batches, tokenizer)
    assert not workdir.exists()


@pytest.mark.nightly
def test_two_hosts_train_together(bucket, config, change, open_batches, tokenizer, tmp_path):
    """Each writes its shards; what the first one writes is that of one process alone."""
    refused = ("in use by process", "the first process could not")
    for (status, output, errors), said in zip(on_two_hosts(bucket / "run"), refused, strict=True):
        assert status == 0, errors
        assert said in output
    assert saved_steps(bucket / "run/checkpoints") == [2]
    names = (bucket / "run/checkpoints/2").below()
    assert {f"params/ocdbt.process_{rank}/manifest.ocdbt" for rank in range(2)} <= names.keys()
    for name, value in {"num_steps": 2, "checkpoint_every": 0, "eval_every": 0}.items():
        config = change(config, f"train.{name}", value)
    train(config, tmp_path / "alone", open_batches, tokenizer)
    for found, alone in zip(rows_of(bucket / "run"), rows_of(tmp_path / "alone"), strict=True):
        for name in {"loss", "grad_norm", "eval/loss"} & alone.keys():
            assert found[name] == pytest.approx(alone[name], rel=1e-5), name


CONFIG = """
    from glm_jax.config import *

    def get_config():
        return Config(
            model=ModelConfig(vocab_size=7168, num_layers=2, embed_dim=16, num_heads=2,
                              max_positions=64),
            data=DataConfig(store={store!r}, sequence_length=64, batch_size=8),
            objective=ObjectiveConfig(span_rate=0.5, sentence_rate=0.2, document_rate=0.3),
            optimizer=OptimizerConfig(peak_learning_rate=1e-2, warmup_steps=2),
            train=TrainConfig(num_steps=8, log_every=1, eval_every=4, eval_batches=2,
                              checkpoint_every=2, sample_every=4),
        )
"""


@pytest.fixture
def home(tmp_path):
    """A config and a small token store."""
    tokenizer = load_tokenizer("bundled")
    corpus = importlib.resources.files("glm_jax.bundled") / "corpus.en.xz"
    text = lzma.decompress(corpus.read_bytes())[:60_000].decode(errors="ignore")
    documents = tokenizer.encode_batch([p for p in text.split("\n\n") if p.strip()])
    with StoreWriter(
        tmp_path / "store",
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.special,
        sentence_ends=tokenizer.sentence_ends(),
        description={},
    ) as writer:
        writer.add("train", documents[:-10])
        writer.add("eval", documents[-10:])
    text = textwrap.dedent(CONFIG).format(store=str(tmp_path / "store"))
    (tmp_path / "config.py").write_text(text)
    return tmp_path


def start(home, workdir, *overrides):
    command = [sys.executable, "-m", "glm_jax.train", "--config", str(home / "config.py")]
    command += ["--workdir", str(workdir)]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.nightly  # 40 s: three commands; test_train.py has one that is killed on a disk
def test_a_killed_run_ends_as_a_local_one_that_was_not(home, bucket, tmp_path):
    """With its token store in the bucket too; then its model is loaded from there, and saved."""
    workdir, store = bucket / "runs/killed", f"data.store={bucket / 'store'}"
    for file in (home / "store").iterdir():
        (bucket / "store" / file.name).upload(file)
    process = start(home, workdir, store)
    deadline = time.monotonic() + 300
    while 4 not in saved_steps(workdir / "checkpoints"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert (workdir / OWNER).exists()
    output, errors = start(home, workdir, store).communicate()
    assert "goes on after step" in output, errors
    assert not (workdir / OWNER).exists()
    output, errors = start(home, tmp_path / "local").communicate()
    assert "done: 8 steps" in output, errors
    assert_same_runs(workdir, tmp_path / "local")
    assert len(list((tmp_path / "cache/fetched").glob("store-*"))) == 1

    here, there = glm_jax.load(tmp_path / "local"), glm_jax.load(str(workdir))
    prompt = "In the beginning, God [MASK] the heavens."
    assert there.fill(prompt) == here.fill(prompt)
    there.save(str(bucket / "model"))
    again = glm_jax.load(str(bucket / "model"))
    jax.tree.map(np.testing.assert_array_equal, again.params, here.params)
    assert again.fill(prompt) == here.fill(prompt)
