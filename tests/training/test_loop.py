"""The loop in this process; tests/test_train.py kills it."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from glm_jax.checkpoints.retention import saved_steps
from glm_jax.errors import UserError
from glm_jax.training import checkpoints, loop
from glm_jax.training.loop import train
from glm_jax.training.optimizer.optimizers import learning_rate_schedule
from glm_jax.training.run.extension import extended
from glm_jax.training.run.rewind import Rewind
from glm_jax.training.run.workdir import read_record
from glm_jax.training.watch import recording
from glm_jax.training.watch.goodput import Goodput
from glm_jax.training.watch.goodput_log import read_log
from glm_jax.training.watch.metrics import MetricsLog
from glm_jax.training.watch.tasks import Answers, Watched
from tests.free_port import free_port


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
    assert "step 3/4  loss " in said
    assert re.search(
        r"\ndone: 4 steps, held out [\d.]+ \(unigram .*; see .*run\nnext: .* -m glm", said
    )
    assert "7,904 parameters: embedding 1,312, attention 2,176, mlp 4,256, norms 160" in said
    assert "parameters 30.9 KiB, optimizer 61.8 KiB, gradients 30.9 KiB" in said
    assert "4 rows x 24 slots = 96 tokens" in said
    assert "64 rows per epoch" in said
    assert train(short, tmp_path / "run", open_batches, tokenizer) == 0
    said = capsys.readouterr().out.splitlines()
    assert "finished" in said[0]
    assert said[1].startswith("next: ")
    assert said[2].endswith("--set train.num_steps=8 --extend")
    assert rows_of(tmp_path / "run") == rows


def test_log_every(short, change, open_batches, tokenizer, tmp_path):
    train(change(short, "train.log_every", 3), tmp_path, open_batches, tokenizer)
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == [3, 4]


@pytest.mark.nightly
def test_more_steps_of_a_constant_schedule(short, change, open_batches, tokenizer, tmp_path):
    short = change(short, "optimizer.schedule", "constant")
    for steps, workdir in ((2, "a"), (4, "a"), (4, "b")):
        config = change(short, "train.num_steps", steps)
        assert train(config, tmp_path / workdir, open_batches, tokenizer) == 0
    losses = [[row["loss"] for row in rows_of(tmp_path / name) if "loss" in row] for name in "ab"]
    assert losses[0] == losses[1]


def losses_and_rates(workdir):
    rows = without_times(rows_of(workdir))
    return [(row["step"], row["loss"], row["learning_rate"]) for row in rows if "loss" in row]


def test_a_run_that_was_extended_goes_on_exactly(config, change, open_batches, tokenizer, tmp_path):
    """Four steps of a cosine, four more; killed after the sixth, with no word of the extension."""
    a, b = tmp_path / "a", tmp_path / "b"
    config = change(change(config, "train.keep_checkpoints", 9), "train.num_steps", 4)
    assert train(config, a, open_batches, tokenizer) == 0
    before = losses_and_rates(a)
    asked = change(config, "train.num_steps", 8)
    with pytest.raises(UserError, match=r"may grow with --extend; this run is at 4"):
        train(asked, a, open_batches, tokenizer)
    longer = extended(asked, read_record(a), 4)
    assert train(longer, a, open_batches, tokenizer) == 0
    assert losses_and_rates(a)[:4] == before
    schedule = learning_rate_schedule(longer.optimizer, 8)
    rates = [rate for _, _, rate in losses_and_rates(a)]
    assert rates == pytest.approx([float(schedule(step)) for step in range(1, 9)])
    assert rates[5] > 2 * rates[3]
    shutil.copytree(a, b)
    shutil.rmtree(b / "checkpoints" / "8")
    for again in (asked, extended(asked, read_record(b), 6)):
        assert train(again, b, open_batches, tokenizer) == 0
    assert losses_and_rates(b) == losses_and_rates(a)
    with pytest.raises(UserError, match="num_steps was 8, is 4"):
        train(config, b, open_batches, tokenizer)


def test_a_signal_saves_its_step_and_the_same_run_goes_on(
    short, change, open_batches, tokenizer, tmp_path, monkeypatch, capfd
):
    real = MetricsLog.write

    def write(self, step, values):
        if step == 2 and "loss" in values:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, step, values)

    assert train(short, tmp_path / "whole", open_batches, tokenizer) == 0
    monkeypatch.setattr(MetricsLog, "write", write)
    assert train(short, tmp_path / "run", open_batches, tokenizer) == 130
    (saved,) = saved_steps(tmp_path / "run" / "checkpoints")
    out, errors = capfd.readouterr()
    said = rf"\nstopped by SIGINT; step {saved} is saved, \d+\.\d s after the signal; "
    assert re.search(rf"{said}the same command goes on\n$", out)
    assert "SIGINT: saving after this step; a second signal ends at once\n" in errors
    monkeypatch.undo()
    assert train(short, tmp_path / "run", open_batches, tokenizer) == 0
    assert losses_and_rates(tmp_path / "run") == losses_and_rates(tmp_path / "whole")


def test_a_second_run_in_a_workdir_is_refused(short, open_batches, tokenizer, tmp_path):
    def batches(split, shard_index, num_shards):
        with pytest.raises(UserError, match="in use by process"):
            train(short, tmp_path / "run", open_batches, tokenizer)
        return open_batches(split, shard_index, num_shards)

    assert train(short, tmp_path / "run", batches, tokenizer) == 0
    assert not (tmp_path / "run" / ".owner").exists()


def test_samples_come_after_the_save_of_their_step(
    short, change, open_batches, tokenizer, tmp_path, monkeypatch
):
    """Whatever happens to them, the checkpoint is there, and the next start makes them."""
    config = change(change(short, "train.checkpoint_every", 2), "train.sample_every", 2)

    def fail(*_):
        raise RuntimeError("no sample")

    monkeypatch.setattr(loop.Sampler, "section", fail)
    with pytest.raises(RuntimeError, match="no sample"):
        train(config, tmp_path, open_batches, tokenizer)
    assert saved_steps(tmp_path / "checkpoints") == [2]
    monkeypatch.undo()
    assert train(config, tmp_path, open_batches, tokenizer) == 0
    samples = (tmp_path / "samples.txt").read_text()
    assert [line for line in samples.splitlines() if line.startswith("step")] == [
        "step 2",
        "step 4",
    ]


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


def without_times(rows):
    times = ("tokens_per_second", "goodput", "time/")
    return [{k: v for k, v in row.items() if not k.startswith(times)} for row in rows]


def test_what_a_row_says_of_the_data_and_of_time(short, change, open_batches, tokenizer, tmp_path):
    train(change(short, "train.checkpoint_every", 2), tmp_path, open_batches, tokenizer)
    row = rows_of(tmp_path)[1]
    assert row["data/targets/span"] == row["data/targets/document"] == 10
    assert row["data/padding"] == pytest.approx(1 - row["data/places_used"])
    assert 0 < row["time/step_ms_p50"] <= row["time/step_ms_p90"] <= row["time/step_ms_p99"]
    assert 0 <= row["time/data_stall"] <= 1
    assert row["goodput"] == pytest.approx(row["time/steps"] / row["time/wall"])
    # In the row behind each save; none is behind the last one.
    stalls = {r["step"]: r["time/save_stall"] for r in rows_of(tmp_path) if "time/save_stall" in r}
    assert list(stalls) == [3]
    assert all(seconds > 0 for seconds in stalls.values())


def test_each_thing_that_is_done_has_its_category(
    config, open_batches, tokenizer, tmp_path, monkeypatch
):
    goodputs, seen = [], []

    class Noted(Goodput):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            goodputs.append(self)

    def note(owner, name):
        real = getattr(owner, name)

        def noting(*arguments):
            seen.append((name, goodputs[0]._category))
            return real(*arguments)

        monkeypatch.setattr(owner, name, noting)

    monkeypatch.setattr(loop, "Goodput", Noted)
    for owner, name in (
        (loop, "create_state"),
        (loop, "compile_train_step"),
        (loop.Evaluator, "__call__"),
        (loop.Checkpoints, "save"),
        (loop.Checkpoints, "wait"),
        (loop.Checkpoints, "poll"),
        (loop.Sampler, "add"),
        (loop.Feed, "__next__"),
        (recording.Recorder, "step"),
    ):
        note(owner, name)
    assert train(config, tmp_path, open_batches, tokenizer) == 0
    assert set(seen) == {
        ("create_state", "starting"),
        ("compile_train_step", "compiling"),
        ("__call__", "evaluating"),
        ("save", "saving"),
        ("wait", "saving"),
        ("wait", "steps"),  # of poll, where a save has ended
        ("poll", "steps"),
        ("add", "sampling"),
        ("__next__", "waiting_for_data"),
        ("step", "steps"),
        ("wait", "other"),  # of close, where nothing is left to wait for
    } - ({("wait", "steps")} - set(seen))
    records, _ = read_log(tmp_path / "goodput.jsonl")
    # A line is closed by each save, after steps 2, 4 and 6.
    assert {2, 4, 6} <= {record.step for record in records}
    assert (records[-1].status, records[-1].tokens_per_step) == (0, 96)


class Asked:
    """Stands for tasks: an accuracy by the number of times that they were asked."""

    fingerprint = "one task"

    def __init__(self, *accuracies):
        self.accuracies, self.norms = accuracies, []

    def __call__(self, params):
        accuracy = self.accuracies[len(self.norms)]
        self.norms.append(float(np.asarray(params["embedding"]["table"]).sum()))
        values = {"eval/reviews/accuracy": accuracy}
        return Answers(values, f"reviews {accuracy}", f"  reviews: {accuracy}\n")


def test_tasks_are_asked_before_the_save_that_keeps_the_best(
    config, change, open_batches, tokenizer, tmp_path
):
    for name, value in (
        ("keep_checkpoints", 1),
        ("keep_best", 1),
        ("best_metric", "eval/reviews/accuracy"),
        ("eval_tasks_every", 2),
        ("eval_every", 0),
    ):
        config = change(config, f"train.{name}", value)
    asked = Asked(0.2, 0.9, 0.3)
    whole = tmp_path / "whole"
    assert train(config, whole, open_batches, tokenizer, watched=Watched(tasks=asked)) == 0
    rows = [row for row in rows_of(whole) if "eval/reviews/accuracy" in row]
    assert [(row["step"], row["eval/reviews/accuracy"]) for row in rows] == [
        *[(2, 0.2), (4, 0.9)],
        (6, 0.3),
    ]
    assert saved_steps(whole / "checkpoints") == [4, 6]
    text = (whole / "answers.txt").read_text()
    assert text == "step 2\n  reviews: 0.2\nstep 4\n  reviews: 0.9\nstep 6\n  reviews: 0.3\n"
    assert len(set(asked.norms)) == 3
    # A run that goes on after the step asks what is left, of the same parameters.
    for name in ("metrics.jsonl", "checkpoints", "run.json", "data.json", "unigram.npz"):
        copy = shutil.copytree if name == "checkpoints" else shutil.copy
        (tmp_path / "run").mkdir(exist_ok=True)
        copy(whole / name, tmp_path / "run" / name)
    shutil.copy(whole / "answers.txt", tmp_path / "run")
    shutil.copy(whole / "tokenizer.model", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    again = Asked(0.3)
    assert (
        train(config, tmp_path / "run", open_batches, tokenizer, watched=Watched(tasks=again)) == 0
    )
    assert again.norms == asked.norms[2:]
    assert (tmp_path / "run" / "answers.txt").read_text() == text
    assert losses_and_rates(tmp_path / "run") == losses_and_rates(whole)


def test_tasks_come_with_the_evaluations_and_count_as_such(
    config, open_batches, tokenizer, tmp_path, monkeypatch
):
    current = []
    real = Goodput.during

    def during(self, category):
        current.append(category)
        return real(self, category)

    monkeypatch.setattr(Goodput, "during", during)
    asked = Asked(0.1, 0.2)
    assert train(config, tmp_path, open_batches, tokenizer, watched=Watched(tasks=asked)) == 0
    assert [row["step"] for row in rows_of(tmp_path) if "eval/reviews/accuracy" in row] == [3, 6]
    assert current.count("evaluating") == 4


def test_back_to_an_older_step_and_past_a_span_of_the_data(
    config, change, open_batches, tokenizer, tmp_path, capsys
):
    """Batches 2 and 3 are left out, by going back to step 2 and by the record from the start."""
    config = change(change(config, "train.keep_checkpoints", 9), "optimizer.schedule", "constant")
    a, b = tmp_path / "a", tmp_path / "b"
    assert train(config, a, open_batches, tokenizer) == 0
    before = rows_of(a)
    # To step 2 again: the same rows again, and what came after is kept.
    assert train(config, a, open_batches, tokenizer, rewind=Rewind(2)) == 0
    assert "goes on after step 2" in capsys.readouterr().out
    assert without_times(rows_of(a)) == without_times(before)
    assert saved_steps(a / "rewound" / "1" / "checkpoints") == [4, 6]
    assert rows_of(a / "rewound" / "1") == before
    # And without two batches, by a run that stops in between and goes on.
    part = change(config, "train.num_steps", 4)
    assert train(part, a, open_batches, tokenizer, rewind=Rewind(2, skip_batches=2)) == 0
    assert "without batches 2 to 3" in capsys.readouterr().out
    assert train(config, a, open_batches, tokenizer) == 0
    b.mkdir()
    (b / "skipped.json").write_text("[[2, 4]]")
    assert train(config, b, open_batches, tokenizer) == 0
    training = [[row for row in without_times(rows_of(x)) if "loss" in row] for x in (a, b)]
    assert training[0] == training[1]
    assert training[0][:2] == [row for row in without_times(before) if "loss" in row][:2]
    assert training[0][2] != [row for row in without_times(before) if "loss" in row][2]


def test_a_step_that_is_not_there_is_not_gone_back_to(short, open_batches, tokenizer, tmp_path):
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        train(short, tmp_path / "run", open_batches, tokenizer, rewind=Rewind(3))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["checkpoint", "metrics"])
def test_a_disk_that_fills_up(
    short, change, open_batches, tokenizer, tmp_path, capsys, monkeypatch, what
):
    """Status 3, one sentence, and the checkpoint of step 2 as it was."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail_from(step, function):
        def wrapped(first, second, *others):
            at = int(first.name) if isinstance(first, Path) else second
            return (full if at >= step else function)(first, second, *others)

        return wrapped

    if what == "checkpoint":
        monkeypatch.setattr(checkpoints, "write_manifest", fail_from(3, checkpoints.write_manifest))
    else:
        monkeypatch.setattr(MetricsLog, "write", fail_from(3, MetricsLog.write))
    config = change(short, "train.checkpoint_every", 1)
    assert train(config, tmp_path, open_batches, tokenizer) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert message.endswith("No space left on device; the newest checkpoint is that of step 2")
    assert saved_steps(tmp_path / "checkpoints") == [1, 2]
    monkeypatch.undo()
    assert train(config, tmp_path, open_batches, tokenizer) == 0
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == [1, 2, 3, 4]


def test_rows_reach_the_trackers(short, open_batches, tokenizer, tmp_path, monkeypatch):
    class Tracker:
        rows: ClassVar[list] = []

        def write(self, step, values):
            self.rows.append((step, values["loss"] if "loss" in values else values["eval/loss"]))

        def close(self):
            self.rows.append("closed")

    monkeypatch.setattr(recording, "open_trackers", lambda *_: [Tracker()])
    train(short, tmp_path, open_batches, tokenizer)
    expected = [(row["step"], row.get("loss", row.get("eval/loss"))) for row in rows_of(tmp_path)]
    assert Tracker.rows == [*expected, "closed"]


def on_two_hosts(workdir, *arguments):
    """Status, output and errors of each of two processes that train together."""
    script = Path(__file__).with_name("train_on_two_hosts.py")
    command = [sys.executable, str(script), str(workdir), str(free_port())]
    hosts = [
        subprocess.Popen(
            [*command, str(rank), *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [host.communicate(timeout=300) for host in hosts]
    return [(host.returncode, *one) for host, one in zip(hosts, said, strict=True)]


@pytest.mark.nightly
@pytest.mark.processes
def test_two_hosts_train_to_the_end_and_show_samples(
    tmp_path, config, change, open_batches, tokenizer
):
    refused = ("in use by process", "the first process could not")
    for (status, output, errors), said in zip(on_two_hosts(tmp_path / "run"), refused, strict=True):
        assert status == 0, errors
        assert said in output
    assert saved_steps(tmp_path / "run" / "checkpoints") == [2]
    assert [row["step"] for row in rows_of(tmp_path / "run") if "loss" in row] == [1, 2]
    # The samples are those of one process that trains alone.
    for name, value in {"num_steps": 2, "checkpoint_every": 0, "eval_every": 0}.items():
        config = change(config, f"train.{name}", value)
    train(config, tmp_path / "alone", open_batches, tokenizer)
    found = (tmp_path / "run" / "samples.txt").read_text()
    assert found == (tmp_path / "alone" / "samples.txt").read_text()
    assert found.startswith("step 2\n")
    assert found.count("filled:") >= 4


@pytest.mark.processes
@pytest.mark.nightly  # 20 s; test_failures.py has more that ends both
def test_a_full_disk_of_the_first_host_ends_both(tmp_path):
    first, second = on_two_hosts(tmp_path / "run", "full")
    assert first[0] == second[0] == 3, (first, second)
    assert "'samples.txt' cannot be used: No space left on device" in first[2]
    assert "error: the first process could not write samples.txt, and says why" in second[2]
    assert saved_steps(tmp_path / "run" / "checkpoints") == [2]
