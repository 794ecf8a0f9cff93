import json
import threading
import time

import pytest

from glm_jax.buckets import BucketPath
from glm_jax.checkpoints.checksums import write_manifest
from glm_jax.checkpoints.retention import (
    check_names,
    remove_failed_save,
    remove_left_overs,
    remove_others,
    saved_steps,
    set_aside,
    steps_to_keep,
    unfinished_steps,
)
from glm_jax.config import TrainConfig
from glm_jax.errors import UserError

LOSSES = {100: 3.9, 200: 3.2, 300: 3.4, 400: None, 500: 3.5}
METRICS = {step: {} if x is None else {"eval/loss": x} for step, x in LOSSES.items()}


@pytest.mark.parametrize(
    ("newest", "best", "metric", "kept"),
    [
        (2, 1, "eval/loss", {200, 400, 500}),  # the module's picture
        (1, 3, "eval/loss", {200, 300, 500}),
        (2, 0, "eval/loss", {400, 500}),
        (1, 2, "eval/loss/span", {500}),
    ],
)
def test_which_stay(newest, best, metric, kept):
    assert steps_to_keep(METRICS, newest, best, metric) == kept


def test_the_best_by_an_accuracy_are_the_highest(tmp_path):
    metrics = {1: {"a": 0.5}, 2: {"a": 0.7}, 3: {"a": 0.7}, 4: {"a": 0.1}, 5: {}}
    assert steps_to_keep(metrics, 1, 2, "a", is_highest=True) == {2, 3, 5}
    assert steps_to_keep(metrics, 1, 1, "a", is_highest=True) == {3, 5}
    assert steps_to_keep(metrics, 1, 1, "a") == {4, 5}
    # As a config says it.
    name = "eval/reviews/accuracy"
    for step, of_step in metrics.items():
        (tmp_path / str(step) / "params").mkdir(parents=True)
        write_manifest(tmp_path / str(step), {name: of_step["a"]} if of_step else {})
    remove_others(tmp_path, TrainConfig(keep_checkpoints=1, keep_best=1, best_metric=name))
    assert saved_steps(tmp_path) == [3, 5]


def test_of_equals_the_newer_and_nothing_that_is_not_finite():
    metrics = {1: {"loss": 2.0}, 2: {"loss": 2.0}, 3: {"loss": float("nan")}, 4: {"loss": 5.0}}
    assert steps_to_keep(metrics, 1, 1, "loss") == {2, 4}


def test_the_others_go_and_so_does_what_was_left_over(tmp_path):
    for step, metrics in METRICS.items():
        (tmp_path / str(step) / "params").mkdir(parents=True)
        write_manifest(tmp_path / str(step), metrics)
    for name in ("unfinished-50", "damaged-60", "600.orbax-checkpoint-tmp", "70.removed"):
        (tmp_path / name).mkdir()
    remove_others(tmp_path, TrainConfig(keep_checkpoints=1, keep_best=1))
    assert saved_steps(tmp_path) == [200, 500]
    remove_left_overs(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"200", "500", "damaged-60"}


@pytest.mark.processes
@pytest.mark.parametrize("manifests", [True, False])
def test_in_a_bucket_a_step_whose_removal_is_killed_is_none(bucket, monkeypatch, manifests):
    """With a manifest, or as written by a version without."""
    steps = bucket / "checkpoints"
    for step in (1, 2):
        metadata = json.dumps({"custom_metadata": {"manifest": manifests}})
        (steps / str(step) / "_CHECKPOINT_METADATA").write_text(metadata)
        (steps / str(step) / "params/x").write_bytes(b"1")
        if manifests:
            write_manifest(steps / str(step), {})
    assert saved_steps(steps) == [1, 2]

    class Killed(BaseException):
        pass

    def kill(path):
        raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(BucketPath, "remove_below", kill)
        with pytest.raises(Killed):
            remove_others(steps, TrainConfig(keep_checkpoints=1))
    assert saved_steps(steps) == [2]
    assert unfinished_steps(steps) == [1]
    aside = set_aside(steps, 1, "unfinished")
    assert str(aside) == str(steps / "unfinished-1")
    remove_others(steps, TrainConfig(keep_checkpoints=1))
    assert {path.name for path in steps.iterdir()} == {"2"}


def test_what_is_set_aside_keeps_what_was_set_aside_before(tmp_path):
    for expected in ("damaged-7", "damaged-7.1", "damaged-7.2"):
        (tmp_path / "7").mkdir()
        assert set_aside(tmp_path, 7, "damaged").name == expected
    assert saved_steps(tmp_path) == []


def test_a_failed_save_is_removed_though_its_threads_still_write(tmp_path):
    left = tmp_path / "2.orbax-checkpoint-tmp"

    def write():
        for _ in range(3):
            (left / "params").mkdir(parents=True, exist_ok=True)
            time.sleep(0.12)

    thread = threading.Thread(target=write)
    thread.start()
    remove_failed_save(tmp_path)
    thread.join()
    assert not left.exists()
    # A disk that lets nothing be removed does not hold the run up for good.
    remove_failed_save(tmp_path / "none", seconds=0.0)


def test_names_are_what_manifests_say(tmp_path):
    for step in (2, 4):
        (tmp_path / str(step)).mkdir()
        write_manifest(tmp_path / str(step), {})
    for name in ("007", "٧", "4.old"):
        (tmp_path / name).mkdir()
    check_names(tmp_path)
    assert saved_steps(tmp_path) == [2, 4]
    (tmp_path / "4").rename(tmp_path / "6")
    with pytest.raises(UserError, match=r"6' holds the checkpoint of step 4, .* rename it to 4"):
        check_names(tmp_path)
    (tmp_path / "6").rename(tmp_path / "4")
    (tmp_path / "9").write_text("")
    with pytest.raises(UserError, match="9' must be a checkpoint's directory"):
        check_names(tmp_path)
    with pytest.raises(UserError, match="must be a directory of checkpoints"):
        check_names(tmp_path / "9")
