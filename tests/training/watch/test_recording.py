import json

import jax.numpy as jnp
import pytest

from glm_jax.training.feed import Fed
from glm_jax.training.watch import recording
from glm_jax.training.watch.recording import Recorder, TrainingDiverged
from glm_jax.training.watch.tasks import Answers

COUNTED = {"rows": 4, "places_used": 84, "rows_fewer_spans": 1, "targets/span": 31}


@pytest.fixture
def recorder(config, change, tmp_path):
    """Of a run of 4 steps, with a row every 2."""
    config = change(change(config, "train.num_steps", 4), "train.log_every", 2)
    recorder = Recorder(config, tmp_path, 0)
    with recorder:
        yield recorder
    recorder.close()


def metrics(loss, grad_norm=2.0):
    values = {"grad_norm": grad_norm, "learning_rate": 0.5, "loss": loss, "loss/span": jnp.nan}
    return {name: jnp.float32(value) for name, value in values.items()}


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_a_row_when_it_is_due_with_the_loss_first(recorder, batch, tmp_path, capsys):
    for step in (1, 2, 3):
        recorder.step(step, metrics(6.0 - step), Fed(batch, b"", COUNTED))
    (row,) = rows(tmp_path)
    assert list(row)[:4] == ["step", "loss", "grad_norm", "learning_rate"]
    assert (row["step"], row["loss"], row["data/targets/span"]) == (2, 4.0, 31)
    assert row["data/places_used"] == 84 / (4 * 24)
    assert capsys.readouterr().out.startswith("step 2/4  loss 4.000  learning rate 5.00e-01")
    # For the checkpoint of step 3: what is not finite is left out.
    assert recorder.measured == {"loss": 3.0, "grad_norm": 2.0, "learning_rate": 0.5}


@pytest.mark.parametrize(("loss", "norm"), [(jnp.nan, 2.0), (4.0, jnp.inf)])
def test_what_is_not_finite_ends_the_run(recorder, batch, tmp_path, loss, norm):
    with pytest.raises(TrainingDiverged, match=rf"loss {loss:g}, .* {norm:g} at step 2, .* 0\.5"):
        recorder.step(2, metrics(loss, norm), Fed(batch, b"", COUNTED))
    assert rows(tmp_path) == []


def test_an_evaluation_is_a_row_and_a_plot_and_counts_for_the_checkpoint(
    recorder, batch, tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "evaluation_line", lambda step, values: f"step {step}: well")
    assert recorder.evaluated == "not evaluated"
    recorder.step(1, metrics(5.0), Fed(batch, b"", COUNTED))
    recorder.evaluation(1, {"eval/loss": 3.5, "eval/loss/span": float("nan")})
    assert rows(tmp_path) == [{"step": 1, "eval/loss": 3.5}]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert recorder.evaluated == "well"
    assert recorder.measured["eval/loss"] == 3.5
    assert recorder.measured["loss"] == 5.0
    recorder.step(2, metrics(4.0), Fed(batch, b"", COUNTED))
    assert "eval/loss" not in recorder.measured


def test_trackers_get_the_rows_and_are_closed(config, change, batch, tmp_path, monkeypatch):
    class Tracker:
        def write(self, step, values):
            seen.append((step, values["loss"]))

        def close(self):
            seen.append("closed")

    seen = []
    monkeypatch.setattr(recording, "open_trackers", lambda *_: [Tracker()])
    recorder = Recorder(change(config, "train.log_every", 1), tmp_path, 0)
    with recorder:
        recorder.step(1, metrics(5.0), Fed(batch, b"", COUNTED))
    recorder.close()
    assert seen == [(1, 5.0), "closed"]


def test_the_next_row_says_how_long_a_save_kept_training(config, change, batch, tmp_path):
    recorder = Recorder(change(config, "train.log_every", 1), tmp_path, 0)
    with recorder:
        for step in (1, 2, 3):
            recorder.step(step, metrics(5.0), Fed(batch, b"", COUNTED))
            if step == 1:
                recorder.saved(0.25)
    recorder.close()
    assert [row.get("time/save_stall") for row in rows(tmp_path)] == [None, 0.25, None]


def test_metrics_of_tasks_are_a_row_and_count_for_the_checkpoint(recorder, batch, tmp_path, capsys):
    recorder.step(1, metrics(5.0), Fed(batch, b"", COUNTED))
    values = {"eval/reviews/accuracy": 0.5, "eval/wiki/loss": float("nan")}
    recorder.tasks(1, Answers(values, "reviews/accuracy 0.5", ""))
    assert rows(tmp_path) == [{"step": 1, "eval/reviews/accuracy": 0.5}]
    assert recorder.measured["eval/reviews/accuracy"] == 0.5
    assert recorder.measured["loss"] == 5.0
    assert "step 1: reviews/accuracy 0.5\n" in capsys.readouterr().out
