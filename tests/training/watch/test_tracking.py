"""Stand-ins for both packages; the real TensorBoard writer where it is installed."""

import json
import sys
import types

import pytest

from glm_jax.errors import UserError
from glm_jax.training.watch.tracking import check_trackers, open_trackers


class FakeRun:
    def __init__(self, arguments):
        self.arguments, self.rows, self.finished = arguments, [], False

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**arguments):
        module.runs.append(FakeRun(arguments))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_nothing_is_asked_for(config, tmp_path):
    check_trackers(config)
    assert open_trackers(config, tmp_path, 0) == []


@pytest.mark.parametrize(
    ("name", "value", "package"),
    [("tensorboard", True, "tensorboardX"), ("wandb", "glm", "wandb")],
)
def test_a_package_that_is_missing(config, change, monkeypatch, name, value, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"train\.{name}=.* needs the package {package}"):
        check_trackers(change(config, f"train.{name}", value))


def test_a_resumed_run_goes_on_with_its_id(config, change, wandb, tmp_path):
    config = change(config, "train.wandb", "glm")
    check_trackers(config)
    for last_step in (0, 4):
        (tracker,) = open_trackers(config, tmp_path, last_step)
        tracker.write(last_step + 1, {"loss": 2.5, "loss/span": float("nan")})
        tracker.close()
    first, second = wandb.runs
    assert first.arguments["id"] == second.arguments["id"]
    assert json.loads((tmp_path / "wandb.json").read_text()) == {
        "project": "glm",
        "id": first.arguments["id"],
    }
    assert first.arguments["resume"] == "allow"
    assert first.arguments["config"]["model"]["num_layers"] == 2
    assert first.rows == [{"step": 1, "loss": 2.5}]
    assert second.rows == [{"step": 5, "loss": 2.5}]
    assert first.finished
    # Another project knows nothing of the id.
    open_trackers(change(config, "train.wandb", "other"), tmp_path, 4)
    assert wandb.runs[2].arguments["id"] != first.arguments["id"]


def test_tensorboard_purges_what_a_resumed_run_writes_again(config, change, monkeypatch, tmp_path):
    calls = []

    class SummaryWriter:
        def __init__(self, directory, purge_step, filename_suffix):
            calls.append((directory, purge_step))

        def add_scalar(self, *row):
            calls.append(row)

        def close(self):
            calls.append("closed")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    config = change(config, "train.tensorboard", True)
    for last_step in (0, 4):
        (tracker,) = open_trackers(config, tmp_path, last_step)
        tracker.write(last_step + 1, {"loss": 2.5, "loss/span": float("nan")})
        tracker.close()
    directory = str(tmp_path / "tensorboard")
    assert calls == [
        *[(directory, None), ("loss", 2.5, 1), "closed"],
        *[(directory, 5), ("loss", 2.5, 5), "closed"],
    ]


def test_the_real_writer_is_read_back_by_tensorboard(config, change, tmp_path):
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = change(config, "train.tensorboard", True)
    for last_step, losses in ((0, [5.0, 4.0, 3.0]), (2, [2.5])):
        (tracker,) = open_trackers(config, tmp_path, last_step)
        for i, loss in enumerate(losses):
            tracker.write(last_step + i + 1, {"loss": loss})
        tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 5.0), (2, 4.0), (3, 2.5)]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"project": "glm"}', b"[" * 100_000])
def test_a_record_that_cannot_be_read_gives_way_to_a_new_run(
    config, change, wandb, tmp_path, caplog, content
):
    (tmp_path / "wandb.json").write_bytes(content)
    open_trackers(change(config, "train.wandb", "glm"), tmp_path, 4)
    assert "is not the record of a W&B run" in caplog.text
    record = json.loads((tmp_path / "wandb.json").read_text())
    assert record == {"project": "glm", "id": wandb.runs[0].arguments["id"]}
